"""A technique trained for a few steps on a model and rows that take milliseconds a step, in this process."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

import train
from snaketune.inference.torch_backend import TorchBackend
from snaketune.training.adapters import attach, taken_from_base
from snaketune.training.base_model import load_base
from snaketune.training.batches import plan_batches
from snaketune.training.checkpoints import Checkpoints
from snaketune.training.loop import TrainingLoop
from snaketune.training.rank_budget import budget_of
from snaketune.training.schedule import Plan
from support.training_runs import rows_to_learn

ROWS = rows_to_learn(64, 1)


class Trained:
    """A technique trained for a few steps as train.py does, with what it saved."""

    def __init__(self, base: Path, out: Path, recipe: dict[str, Any], steps: int | None = None):
        accelerator = Accelerator(cpu=True)
        torch.manual_seed(1)
        self.recipe, self.out = recipe, out
        batches = plan_batches(ROWS, 16, 4, 1)[:steps]
        model = attach(load_base(base, recipe["base_precision"]), recipe["adapter"], len(batches))
        if budget := budget_of(model):
            accelerator.register_for_checkpointing(budget)
        self.taken = taken_from_base(model, recipe["adapter"])
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        self.model, self.optimizer = accelerator.prepare(model.train(), optimizer)
        plan = Plan(batches, 16, recipe["learning_rate"], 0.05, 1.0, 5)
        checkpoints = Checkpoints(accelerator, out / "work", "key", whole=False)
        self.fit = TrainingLoop(
            accelerator, self.model, self.optimizer, ROWS, 0, plan, checkpoints, "run", budget=budget
        )
        self.save = lambda: train.save(accelerator, self.model, recipe, self.taken, out)

    def run(self) -> "Trained":
        self.fit.run()
        self.save()
        self.model.eval()
        return self

    def logits(self) -> np.ndarray:
        with torch.no_grad():
            found = [self.model(input_ids=ids, position_ids=p) for ids, p in map(as_inputs, ROWS.ids[:8])]
        return np.concatenate([one.logits[0].numpy() for one in found])


def as_inputs(ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(ids.astype(np.int64))[None], torch.arange(len(ids))[None]


def logits(model: Any, prefix: Path | None = None) -> np.ndarray:
    backend = TorchBackend(model, prefix)
    return np.concatenate([backend.forward(ids[None].astype(np.int64), None, len(ids))[0][0] for ids in ROWS.ids[:8]])
