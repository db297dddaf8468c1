"""The training loop that pre-training and every technique share.

Data order comes from the seed alone and the loss is divided by the global count of answer
tokens, so that a run gives the same result at any number of ranks.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator

from snaketune.core.errors import UserError
from snaketune.data.tokens import Rows
from snaketune.training.checkpoints import Checkpoints
from snaketune.training.memory import peak_memory

IGNORED = -100


@dataclass
class Plan:
    """How long and at what rate: ``batches`` holds the row numbers of each global step."""

    batches: list[list[int]]
    micro_batch_rows: int
    learning_rate: float
    warmup_share: float
    max_grad_norm: float
    checkpoint_steps: int

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a tenth, of the learning rate at a step (from 0)."""
        warmup = max(1, round(self.warmup_share * len(self.batches)))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, len(self.batches) - warmup)
        return self.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


def plan_batches(rows: Rows, batch_rows: int, epochs: int, seed: int) -> list[list[int]]:
    """Row numbers of each global batch: shuffled by the seed, rows of like length together."""
    batches: list[list[int]] = []
    for epoch in range(epochs):
        generator = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = generator.permutation(len(rows))
        grouped = [
            sorted(part, key=lambda row: (len(rows.ids[row]), row))
            for part in np.array_split(order, max(1, len(rows) // (batch_rows * 16)))
        ]
        flat = [int(row) for part in grouped for row in part]
        cut = [flat[i : i + batch_rows] for i in range(0, len(flat), batch_rows)]
        batches += [cut[i] for i in generator.permutation(len(cut))]
    return batches


def collate(rows: Rows, numbers: list[int], pad: int, device: torch.device) -> tuple[dict[str, Any], torch.Tensor]:
    """Model inputs and targets of some rows, aligned to the right so that answers end together.

    Returns:
        Inputs with ``input_ids``, ``attention_mask`` and ``position_ids`` of shape
        (rows, longest) and the count of last positions whose logits are needed, k; and the
        targets of these, shape (rows, k - 1), with IGNORED where no loss falls.
    """
    longest = max(len(rows.ids[n]) for n in numbers)
    ids = torch.full((len(numbers), longest), pad)
    mask = torch.zeros((len(numbers), longest), dtype=torch.long)
    labels = torch.full((len(numbers), longest), IGNORED)
    for i, n in enumerate(numbers):
        row = torch.from_numpy(rows.ids[n].astype(np.int64))
        ids[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
        answers = torch.from_numpy(rows.answers[n]).clone()
        answers[0] = False
        labels[i, longest - len(row) :][answers] = row[answers]
    keep = int((labels != IGNORED).any(0).long().flip(0).cumsum(0).argmax()) + 2
    inputs = {
        "input_ids": ids.to(device),
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device),
        "logits_to_keep": keep,
        "use_cache": False,
    }
    if not bool(mask.all()):
        inputs["attention_mask"] = mask.to(device)
    return inputs, labels[:, longest - keep + 1 :].to(device)


def answer_loss(model: torch.nn.Module, inputs: dict[str, Any], targets: torch.Tensor) -> torch.Tensor:
    """Summed negative log-likelihood, in nats, of the answer tokens."""
    logits = model(**inputs).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


@torch.no_grad()
def mean_loss(model: torch.nn.Module, rows: Rows, pad: int, device: torch.device, batch_rows: int) -> float:
    """Mean negative log-likelihood, in nats, per answer token of ``rows``."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda row: len(rows.ids[row]))
    total = sum(
        float(answer_loss(model, *collate(rows, order[i : i + batch_rows], pad, device)))
        for i in range(0, len(order), batch_rows)
    )
    model.train()
    return total / rows.answer_tokens(order)


def portions(batch: list[int], rank: int, world: int, rows: int) -> list[tuple[list[int], float]]:
    """What a rank computes of a global batch: micro-batches of at most ``rows``, and what each counts.

    Every rank has as many, because under ZeRO each forward and backward is a meeting of all
    ranks: one that has run out of rows takes a row again, at weight 0.
    """
    mine = batch[rank::world]
    parts = [(mine[i : i + rows], 1.0) for i in range(0, len(mine), rows)]
    most = -(-len(batch[::world]) // rows)
    return parts + [(batch[:1], 0.0)] * (most - len(parts))


class Fit:
    """Runs a plan with an Accelerator, keeping checkpoints in ``work`` that a killed job resumes."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: Any,
        optimizer: Any,
        rows: Rows,
        plan: Plan,
        pad: int,
        work: Path,
        name: str,
        key: str,
        strict_checkpoint: bool = True,
        watch: Callable[[dict[str, Any]], None] | None = None,
        ending: Callable[[], bool] = lambda: False,
    ):
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.rows, self.plan, self.pad, self.name = rows, plan, pad, name
        self.checkpoints = Checkpoints(accelerator, work, key, strict_checkpoint)
        self.watch, self.ending = watch, ending
        self.log: list[dict[str, Any]] = []
        self.seconds = self.cpu_seconds = 0.0
        self.earlier_peak = 0

    def run(self, validate: Callable[[], float] | None = None, validate_every: int = 0) -> None:
        """Train to the end of the plan, from the last checkpoint where there is one.

        Raises:
            UserError: the loss is not a number; the last good checkpoint stays. Or a rank is
                ``ending``: all have saved a checkpoint. Ranks but the first then exit without a word.
        """
        first = self._resume()
        started, cpu = time.perf_counter(), time.process_time()
        for step in range(first, len(self.plan.batches)):
            entry = self._step(step)
            last = step + 1 == len(self.plan.batches)
            if validate and (last or (step + 1) % validate_every == 0):
                entry["validation_loss"] = validate()
                if not math.isfinite(entry["validation_loss"]):
                    raise UserError(self._diverged(step, entry["validation_loss"]))
            self.log.append(entry)
            if self.watch:
                self.watch(entry)
            now, now_cpu = time.perf_counter(), time.process_time()
            self.seconds, started = self.seconds + now - started, now
            self.cpu_seconds, cpu = self.cpu_seconds + now_cpu - cpu, now_cpu
            if last or (step + 1) % max(1, len(self.plan.batches) // 20) == 0:
                self._show(entry)
            leaving = not last and self._any_rank_is_ending()
            if leaving or (not last and (step + 1) % self.plan.checkpoint_steps == 0):
                self._save(step + 1)
                started, cpu = time.perf_counter(), time.process_time()
            if leaving:
                self._leave(step)

    def _any_rank_is_ending(self) -> bool:
        flag = torch.tensor(float(self.ending()), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum"))

    def _leave(self, step: int) -> NoReturn:
        self.accelerator.end_training()
        if not self.accelerator.is_main_process:
            raise SystemExit(1)
        raise UserError(
            f"{self.name}: asked to end by a signal, it stopped after step {step + 1} of {len(self.plan.batches)}, which is saved in {self.checkpoints.work}: run it again and it goes on from there"
        )

    def _step(self, step: int) -> dict[str, Any]:
        batch, world, rank = self.plan.batches[step], self.accelerator.num_processes, self.accelerator.process_index
        answers = self.rows.answer_tokens(batch)
        mine = portions(batch, rank, world, self.plan.micro_batch_rows)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step)
        total = torch.zeros((), device=self.accelerator.device)
        for number, (part, weight) in enumerate(mine):
            last = number + 1 == len(mine)
            self.accelerator.sync_gradients = last
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = answer_loss(self.model, *collate(self.rows, part, self.pad, self.accelerator.device)) * weight
                if not torch.isfinite(loss):
                    raise UserError(self._diverged(step, float(loss.detach())))
                total += loss.detach()
                # Ranks' gradients are averaged, so the sum over all ranks needs the factor `world`.
                self.accelerator.backward(loss * world / answers)
        total = self.accelerator.reduce(total, "sum") / answers
        if self.plan.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.plan.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens = (self.log[-1]["tokens"] if self.log else 0) + self.rows.tokens(batch)
        return {"step": step + 1, "loss": float(total), "learning_rate": self.plan.rate(step), "tokens": tokens}

    def _diverged(self, step: int, loss: float) -> str:
        kept = self.checkpoints.last()
        where = f"the last good checkpoint is {kept}" if kept else "there was no checkpoint yet"
        return f"{self.name}: the loss is {loss} at step {step + 1} of {len(self.plan.batches)}; {where}; lower learning_rate, or set max_grad_norm"

    def _show(self, entry: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            validation = f"  validation {entry['validation_loss']:.3f}" if "validation_loss" in entry else ""
            left = self.seconds / entry["step"] * (len(self.plan.batches) - entry["step"])
            print(
                f"[{self.name}] step {entry['step']}/{len(self.plan.batches)}  loss {entry['loss']:.3f}{validation}  {entry['tokens'] / max(self.seconds, 1e-9):,.0f} tokens/s  {left:.0f} s left",
                flush=True,
            )

    def _save(self, step: int) -> None:
        progress = {"log": self.log, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        self.checkpoints.save(step, progress, max(self.earlier_peak, peak_memory()))

    def _resume(self) -> int:
        """The step to go on from: 0 where there is no checkpoint of this very recipe."""
        found = self.checkpoints.load()
        if found is None:
            return 0
        path, state = found
        self.log, self.seconds, self.cpu_seconds = state["log"], state["seconds"], state["cpu_seconds"]
        self.earlier_peak = state["peaks"][self.accelerator.process_index]
        if self.accelerator.is_main_process:
            print(f"[{self.name}] goes on from step {state['step']} ({path})", flush=True)
        return int(state["step"])
