"""The plan of a run: its batches, and the learning rate of each step."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import get_scheduler


@dataclass
class Plan:
    """The schedule of a run: ``batches`` holds the row numbers of each global batch, one per step.

    ``scheduler`` is one of transformers' by name, with its ``options``; without it, the rate falls along a cosine to a tenth.
    """

    batches: list[list[int]]
    micro_batch_rows: int
    learning_rate: float
    warmup_share: float
    max_grad_norm: float
    checkpoint_steps: int
    micro_batch_tokens: float = math.inf
    scheduler: str | None = None
    options: dict[str, float] = field(default_factory=dict)

    @property
    def warmup(self) -> int:
        return max(1, round(self.warmup_share * len(self.batches)))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (from 0): linear warm-up, then cosine decay to a tenth."""
        if self.scheduler:
            return self.learning_rate * float(self._factor(step))
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, len(self.batches) - self.warmup)
        return self.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)

    @cached_property
    def _factor(self) -> Any:
        """transformers' function of a step; some read the rate from an optimizer.

        Their warm-up begins at a rate of 0, with which the first step would learn nothing: as here, step 0 has the rate of theirs of 1.
        """
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=self.learning_rate)
        steps = {"num_warmup_steps": self.warmup, "num_training_steps": len(self.batches)}
        options = {name: int(value) if value == int(value) else value for name, value in self.options.items()}
        factor = get_scheduler(
            self.scheduler or "constant", optimizer, **steps, scheduler_specific_kwargs=options
        ).lr_lambdas[0]
        return lambda step: factor(step + 1)
