"""The trackers that an experiment may name, and whether they are installed: standard library only, for whoever plans a run."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from snaketune.core.errors import UserError

Tracker = Literal["tensorboard", "mlflow", "wandb", "dvclive"]
LOCK = Path(__file__).parents[3] / "envs/track/requirements.txt"


def require(trackers: Sequence[str]) -> None:
    """Raise a UserError if this Python lacks the package of a tracker."""
    if missing := [name for name in trackers if find_spec(name) is None]:
        raise UserError(
            f"tracking: {', '.join(missing)} isn't installed: run `{sys.executable} -m pip install --requirement {LOCK}`, or remove it from `tracking`"
        )
