"""The measured files of an experiment, read by run."""

from pathlib import Path
from typing import Any

import numpy as np

from snaketune.core import files
from snaketune.core.paths import export_path, run_path, weights_path
from snaketune.reporting.params import Cell, SummaryParams

UNTUNED = "base"
STATES = ("weight", "gradient", "optimizer")


class Results:
    """The measured files of an experiment. A cell is [model, scenario, technique, seed]."""

    def __init__(self, root: Path, recipe: SummaryParams):
        self.root, self.recipe = root, recipe
        self.metric = {name: scenario["primary_metric"] for name, scenario in recipe["scenarios"].items()}
        self.samples, self.confidence = recipe["bootstrap_samples"], recipe["confidence"]

    def run(self, cell: Cell) -> Path:
        return self.root / run_path(*cell)

    def statistics(self, cell: Cell, backend: str) -> np.ndarray:
        """Return the statistics of the scenario's primary metric, (test rows, statistics)."""
        return row_statistics(self.run(cell), backend, self.metric[cell[1]])

    def silent(self, cell: Cell) -> bool:
        """Return whether every answer to the test rows is empty: then no verdict may stand on its metrics."""
        rows = files.read_jsonl(self.run(cell) / "evaluation/torch.predictions.jsonl")
        return all(row.get("prediction") == "" for row in rows)

    def resources(self, cell: Cell) -> Any:
        return files.read_json(self.run(cell) / "resources.json")

    def artifact_bytes(self, cell: Cell, backend: str) -> int:
        """Return the size of what a user keeps: the adapter or all weights for torch, otherwise the ONNX files, or an adapter's."""
        if backend != "torch":
            path = export_path(*cell, precision=backend.removeprefix("onnx-"), calibrated=self.recipe["calibrated"])
        else:
            path = weights_path(*cell) if cell[2] == UNTUNED else run_path(*cell)
        entries = files.read_json(self.root / path / "manifest.json")["files"]
        kept = (".safetensors", ".onnx", ".onnx_data", ".onnx_adapter")
        return sum(entry["bytes"] for name, entry in entries.items() if name.endswith(kept))


def row_statistics(run: Path, backend: str, metric: str) -> np.ndarray:
    """Return what each test row adds to a metric, (test rows, statistics)."""
    rows = files.read_jsonl(run / f"evaluation/{backend}.predictions.jsonl")
    return np.array([row["statistics"][metric] for row in rows], dtype=np.float64)


def state_bytes(rank: dict[str, Any]) -> int:
    """Return the bytes of weights, gradients and optimizer states that a rank holds."""
    return sum(int(rank[f"{kind}_bytes"]) for kind in STATES)


def device(hardware: dict[str, Any]) -> str:
    """Return where a run was measured, in words."""
    cores = f", {hardware['cores']} cores" if hardware["cores"] else ""
    return f"{'GPU beside ' if hardware['gpu'] else ''}{hardware['processor']}{cores}"
