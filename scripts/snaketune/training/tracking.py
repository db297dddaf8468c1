"""A training's figures for trackers, by accelerate's `log_with`; no result depends on them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import DVCLiveTracker, GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from snaketune.config.trackers import require
from snaketune.core.nested import flat

TRACKING, PROJECT = Path("work/tracking"), "snaketune"
# The user's own settings come first. Weights & Biases would ask for an account, MLflow write to ./mlruns; both send
# reports of their own use.
SETTINGS = {
    "MLFLOW_TRACKING_URI": f"sqlite:///{TRACKING}/mlflow.db",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}


def trackers_of(names: Sequence[str], run: str) -> list[GeneralTracker]:
    """Return the trackers of a run, which start below work/tracking/.

    Raises:
        UserError: the package of one isn't installed.
    """
    require(names)
    os.environ |= SETTINGS | os.environ
    if names:
        TRACKING.mkdir(parents=True, exist_ok=True)
    made = {
        "tensorboard": TensorBoardTracker(run, TRACKING / "tensorboard"),
        "mlflow": MLflowTracker(PROJECT, run_name=run),
        "wandb": WandBTracker(PROJECT, name=run, dir=str(TRACKING)),
        "dvclive": DVCLiveTracker(dir=str(TRACKING / "dvclive" / run), save_dvc_exp=False, dvcyaml=None),
    }
    return [made[name] for name in names]


def start(accelerator: Accelerator, recipe: Any) -> None:
    """Start the trackers of an Accelerator, if it has any, with the job's parameters."""
    simple = (bool, int, float, str)
    options = {key: one if isinstance(one, simple) else json.dumps(one) for key, one in flat(recipe).items()}
    accelerator.init_trackers(PROJECT, config=options)
