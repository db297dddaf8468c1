"""Trainings of one small experiment, here and through profiles/slurm."""

import subprocess
from pathlib import Path
from typing import Any

from runs import Runs
from support.experiments import RUNS, SMALL, small
from support.workspace import Workspace

from snaketune.core.files import sha256

LORA, ZERO3 = f"{RUNS}/lora/seed-1", f"{RUNS}/zero3/seed-1"
# So many steps that one of them can be waited for; no checkpoint but the one that a warning asks for.
EXPERIMENT: dict[str, Any] = {
    **SMALL,
    "techniques": ["lora"],
    "precisions": ["fp32"],
    "training": {"epochs": 12, "batch_rows": 15, "checkpoint_steps": 10000},
}


def quality(workspace: Workspace) -> list[dict[str, str]]:
    """The rows of the summary without what is measured on a machine."""
    kept = ("model", "scenario", "technique", "seed", "backend", "metric", "value", "ci_low", "ci_high", "delta", "n")
    return [{key: row[key] for key in kept} for row in workspace.summary()]


def about_to_train(path: Path, laptop: Workspace, technique: str = "lora", **training: Any) -> Runs:
    """All that a training needs is there."""
    workspace = small(
        path, {**EXPERIMENT, "techniques": [technique], "training": {**EXPERIMENT["training"], **training}}
    )
    for name in ("results/corpus", "results/data", "results/models", "results/tokens", ".snakemake/metadata"):
        subprocess.run(["cp", "-a", "--parents", name, path], cwd=laptop.path, check=True)
    return Runs(workspace)


def log_of(path: Path) -> str:
    log = path / "logs/train/test-phi3/test-areas/lora/seed-1.log"
    return log.read_text() if log.exists() else ""


def adapter(path: Path) -> str:
    return sha256(path / LORA / "adapter/adapter_model.safetensors")


def checkpoints(path: Path) -> list[Path]:
    return list((path / "work/training/test-phi3/test-areas/lora/seed-1").glob("checkpoint-*/state.json"))
