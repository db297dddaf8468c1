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

import torch
from accelerate import Accelerator

from snaketune.core.errors import UserError
from snaketune.data.tokens import Rows
from snaketune.training.batches import collate, portions, tokens_of
from snaketune.training.checkpoints import Checkpoints
from snaketune.training.loss import answer_loss
from snaketune.training.memory import peak_memory
from snaketune.training.rank_budget import RankBudget
from snaketune.training.schedule import Plan


@dataclass
class TrainingLoop:
    """One run of a plan: trains with an Accelerator and keeps checkpoints from which a killed job resumes.

    ``shared`` computes once what rows of a micro-batch begin with (``shared_prompts``);
    ``skip_logits`` and ``smoothing`` are those of ``loss.answer_loss``. After so many validations without a lower loss as
    ``patience`` the run ends; ``keep_best`` has the weights of the lowest one in the end. ``interrupted`` says whether
    this process was asked to stop. The Accelerator's trackers, if it has any, are told each logged step.
    """

    accelerator: Accelerator
    model: Any
    optimizer: Any
    rows: Rows
    pad: int
    plan: Plan
    checkpoints: Checkpoints
    name: str
    shared: bool = False
    skip_logits: bool = True
    smoothing: float = 0.0
    patience: float = math.inf
    keep_best: bool = False
    interrupted: Callable[[], bool] = lambda: False
    budget: RankBudget | None = None
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
        first = self._resume()
        for entry in self.log:
            self._track(entry)
        for step in range(first, len(self.plan.batches)):
            entry = self._timed_step(step)
            last = step + 1 == len(self.plan.batches)
            if validate and (last or (step + 1) % validate_every == 0):
                entry["validation_loss"] = self._agreed(validate())
                if not math.isfinite(entry["validation_loss"]):
                    raise self._diverged(step, entry["validation_loss"])
            self.log.append(entry)
            self._track(entry | {"tokens_per_second": entry["tokens"] / max(self.seconds, 1e-9)})
            validated = "validation_loss" in entry
            last = last or (validated and self._waited() >= self.patience)
            if last or (step + 1) % max(1, len(self.plan.batches) // 20) == 0:
                self._show(entry)
            if last:
                break
            stopping, best = self._any_rank_interrupted(), validated and self.keep_best and self.best == step + 1
            if stopping or best or (step + 1) % self.plan.checkpoint_steps == 0:
                self._save(step + 1)
            if stopping:
                self._stop(step)
        if self.keep_best and 0 < self.best < len(self.log):
            self.checkpoints.restore(self.checkpoints.at(self.best))

    @property
    def best(self) -> int:
        """The number of steps after which validation was best so far, or 0."""
        of = {one["validation_loss"]: one["step"] for one in reversed(self.log) if "validation_loss" in one}
        return of[min(of)] if of else 0

    def _waited(self) -> int:
        """Count the validations since the best one."""
        return sum("validation_loss" in one for one in self.log[self.best :])

    def _agreed(self, loss: float) -> float:
        """Return the mean over ranks, which on GPUs may differ in the last digits, so that all decide alike."""
        if self.accelerator.num_processes == 1:
            return loss
        mine = torch.tensor(loss, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(mine, "mean"))

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
        batch, plan = self.plan.batches[step], self.plan
        answers = self.rows.answer_tokens(batch)
        limits = (plan.micro_batch_rows, plan.micro_batch_tokens)
        shares = portions(batch, self.rows, self.accelerator.num_processes, *limits, self.shared)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step) * group.get("rate", 1.0)
        try:
            total = self._gradients(step, shares[self.accelerator.process_index], answers)
        except torch.OutOfMemoryError:
            total = None
        # Outside of the handler, whose traceback would keep the tensors.
        if total is None:
            raise self._out_of_memory(step)
        total = self.accelerator.reduce(total, "sum") / answers
        if self.plan.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.plan.max_grad_norm)
        self.optimizer.step()
        if self.budget:
            self.budget.allocate(step + 1)
        self.optimizer.zero_grad()
        before = self.log[-1] if self.log else {}
        computed = sum(tokens_of(part, self.rows, self.shared) for share in shares for part, _ in share)
        return {
            "step": step + 1,
            "loss": float(total),
            "learning_rate": plan.rate(step),
            "tokens": before.get("tokens", 0) + self.rows.tokens(batch),
            "computed_tokens": before.get("computed_tokens", 0) + computed,
        }

    def _gradients(self, step: int, mine: list[tuple[list[int], float]], answers: int) -> torch.Tensor:
        """Add up the gradients of a rank's share of a batch with ``answers`` tokens to learn; return its share of the loss."""
        world = self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        for number, (part, weight) in enumerate(mine):
            last = number + 1 == len(mine)
            self.accelerator.sync_gradients = last
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self._loss(part, self.shared) * weight
                if not torch.isfinite(loss):
                    raise self._diverged(step, float(loss.detach()))
                total += loss.detach()
                # Gradients are averaged over ranks; the sum over the global batch needs the factor `world`.
                loss = loss * world / answers
                self.accelerator.backward(loss + self.budget.penalty() if last and self.budget else loss)
        return total

    def _loss(self, numbers: list[int], shared: bool) -> torch.Tensor:
        batch = collate(self.rows, numbers, self.pad, self.accelerator.device, shared)
        return answer_loss(self.model, *batch, smoothing=self.smoothing, skip_logits=self.skip_logits)

    def _out_of_memory(self, step: int) -> UserError:
        """Save what was learned before a step and return a message that names a micro-batch which fits.

        Where ranks wait for each other, none is tried: it is the next smaller power of two.
        """
        plan, alone = self.plan, self.accelerator.num_processes == 1
        by_tokens = plan.micro_batch_tokens < math.inf
        key = "micro_batch_tokens" if by_tokens else "micro_batch_rows"
        share = len(plan.batches[step][:: self.accelerator.num_processes])
        had = int(plan.micro_batch_tokens) if by_tokens else min(plan.micro_batch_rows, share)
        # Else accelerate keeps the gradients of the micro-batches before the failed one.
        self.accelerator.sync_gradients = True
        sizes = [2**power for power in reversed(range((had - 1).bit_length()))]
        longest = sorted(range(len(self.rows)), key=lambda row: -len(self.rows.ids[row]))
        tokens = len(self.rows.ids[longest[0]])
        sizes = [size for size in sizes if not by_tokens or size >= tokens]
        found = next((n for n in sizes if not alone or self._fits(longest[: n // tokens if by_tokens else n])), None)
        self.optimizer.zero_grad()
        if alone:
            self._save(step)
        advice = "lower max_tokens of the scenario, or set gradient_checkpointing: true or a smaller base_precision"
        if found:
            advice = f"set {key}: {found} in the technique's file and run it again: it resumes from {self.checkpoints.last() or 'the start'}"
        return UserError(
            f"{self.name}: out of memory at step {step + 1} of {len(plan.batches)} with {key}: {had} and rows of up to {tokens} tokens; {advice}"
        )

    def _fits(self, numbers: list[int]) -> bool:
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        try:
            # Of rows that share nothing.
            self.accelerator.backward(self._loss(numbers, shared=False))
        except torch.OutOfMemoryError:
            return False
        return True

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

    def _track(self, entry: dict[str, Any]) -> None:
        self.accelerator.log({name: value for name, value in entry.items() if name != "step"}, entry["step"])

    def _save(self, step: int) -> None:
        progress = {"log": self.log, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        self.checkpoints.save(step, progress, max(self.earlier_peak, peak_memory()), self.best if self.keep_best else 0)

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
