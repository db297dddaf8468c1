"""The training loop shared by pre-training and every technique.

Data order depends on the seed alone, and the loss is divided by the completion tokens of the global
batch, so that the result does not depend on the number of ranks.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
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
    """The schedule of a run: ``batches`` holds the row numbers of each global batch, one per step."""

    batches: list[list[int]]
    micro_batch_rows: int
    learning_rate: float
    warmup_share: float
    max_grad_norm: float
    checkpoint_steps: int

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (from 0): linear warm-up, then cosine decay to a tenth."""
        warmup = max(1, round(self.warmup_share * len(self.batches)))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, len(self.batches) - warmup)
        return self.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


def plan_batches(rows: Rows, batch_rows: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the row numbers of each global batch: shuffled by the seed, rows of similar length together."""
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
    """Build model inputs and targets, padded on the left so that completions end together.

    Logits are then needed only for the last k positions, which saves most of the head's work.

    Returns:
        Inputs with ``input_ids``, ``attention_mask`` and ``position_ids`` of shape (rows, longest)
        and ``logits_to_keep`` = k; and targets of shape (rows, k - 1), IGNORED outside completions.
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
    """Return the summed negative log-likelihood of the completion tokens, in nats."""
    logits = model(**inputs).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


@torch.no_grad()
def mean_loss(model: torch.nn.Module, rows: Rows, pad: int, device: torch.device, batch_rows: int) -> float:
    """Return the mean negative log-likelihood per completion token, in nats."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda row: len(rows.ids[row]))
    total = sum(
        float(answer_loss(model, *collate(rows, order[i : i + batch_rows], pad, device)))
        for i in range(0, len(order), batch_rows)
    )
    model.train()
    return total / rows.answer_tokens(order)


def portions(batch: list[int], rank: int, world: int, rows: int) -> list[tuple[list[int], float]]:
    """Split a rank's share of a global batch into micro-batches of at most ``rows``, each with its weight.

    Every rank gets the same number, because under ZeRO forward and backward are collective: a rank
    with no rows left repeats one with weight 0.
    """
    mine = batch[rank::world]
    parts = [(mine[i : i + rows], 1.0) for i in range(0, len(mine), rows)]
    most = -(-len(batch[::world]) // rows)
    return parts + [(batch[:1], 0.0)] * (most - len(parts))


@dataclass
class Fit:
    """One run of a plan: trains with an Accelerator and keeps checkpoints from which a killed job resumes.

    ``interrupted`` says whether this process was asked to stop; ``watch`` sees each logged step.
    """

    accelerator: Accelerator
    model: Any
    optimizer: Any
    rows: Rows
    pad: int
    plan: Plan
    checkpoints: Checkpoints
    name: str
    watch: Callable[[dict[str, Any]], None] | None = None
    interrupted: Callable[[], bool] = lambda: False
    log: list[dict[str, Any]] = field(default_factory=list, init=False)
    seconds: float = field(default=0.0, init=False)
    cpu_seconds: float = field(default=0.0, init=False)
    earlier_peak: int = field(default=0, init=False)

    def run(self, validate: Callable[[], float] | None = None, validate_every: int = 0) -> None:
        """Train to the end of the plan, from the last checkpoint if there is one.

        Raises:
            UserError: the loss is not finite (the last good checkpoint stays), or a rank was
                interrupted (all ranks have saved a checkpoint; only the first reports it).
        """
        for step in range(self._resume(), len(self.plan.batches)):
            entry = self._timed_step(step)
            last = step + 1 == len(self.plan.batches)
            if validate and (last or (step + 1) % validate_every == 0):
                entry["validation_loss"] = validate()
                if not math.isfinite(entry["validation_loss"]):
                    raise self._diverged(step, entry["validation_loss"])
            self.log.append(entry)
            if self.watch:
                self.watch(entry)
            if last or (step + 1) % max(1, len(self.plan.batches) // 20) == 0:
                self._show(entry)
            stopping = not last and self._any_rank_interrupted()
            if stopping or (not last and (step + 1) % self.plan.checkpoint_steps == 0):
                self._save(step + 1)
            if stopping:
                self._stop(step)

    def _any_rank_interrupted(self) -> bool:
        flag = torch.tensor(float(self.interrupted()), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum"))

    def _stop(self, step: int) -> NoReturn:
        self.accelerator.end_training()
        if not self.accelerator.is_main_process:
            raise SystemExit(1)
        raise UserError(
            f"{self.name}: stopped by a signal after step {step + 1} of {len(self.plan.batches)}; the checkpoint is in {self.checkpoints.work}: run it again to resume",
            passing=True,
        )

    def _timed_step(self, step: int) -> dict[str, Any]:
        """Train on a batch. Validation, which every rank repeats, and checkpoints don't count in the run's seconds."""
        started, cpu = time.perf_counter(), time.process_time()
        entry = self._step(step)
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu
        return entry

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
                    raise self._diverged(step, float(loss.detach()))
                total += loss.detach()
                # Gradients are averaged over ranks; the sum over the global batch needs the factor `world`.
                self.accelerator.backward(loss * world / answers)
        total = self.accelerator.reduce(total, "sum") / answers
        if self.plan.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.plan.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens = (self.log[-1]["tokens"] if self.log else 0) + self.rows.tokens(batch)
        return {"step": step + 1, "loss": float(total), "learning_rate": self.plan.rate(step), "tokens": tokens}

    def _diverged(self, step: int, loss: float) -> UserError:
        kept = self.checkpoints.last()
        return UserError(
            f"{self.name}: loss is {loss} at step {step + 1} of {len(self.plan.batches)}; {f'the last good checkpoint is {kept}' if kept else 'there is no checkpoint yet'}; lower learning_rate, or set max_grad_norm"
        )

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
        """Return the step to resume from, or 0 if no checkpoint matches this job."""
        found = self.checkpoints.load()
        if found is None:
            return 0
        path, state = found
        self.log, self.seconds, self.cpu_seconds = state["log"], state["seconds"], state["cpu_seconds"]
        self.earlier_peak = state["peaks"][self.accelerator.process_index]
        if self.accelerator.is_main_process:
            print(f"[{self.name}] resumes from step {state['step']} ({path})", flush=True)
        return int(state["step"])
