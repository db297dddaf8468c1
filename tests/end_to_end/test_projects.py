"""A project apart from the checkout makes the same bytes."""

from pathlib import Path

import pytest
from support.experiments import RUNS
from support.workspace import Project, Workspace

from snaketune.core.files import read_json, sha256

MADE = ("results/corpus", "results/data", "results/models", "results/tokens", ".snakemake/metadata")
RUN = f"{RUNS}/lora/seed-1"
SAME = (
    "manifest.json",
    "train.jsonl",
    "merged/manifest.json",
    "onnx/fp32/manifest.json",
    "evaluation/torch.predictions.jsonl",
)


@pytest.mark.parametrize("module", [False, True], ids=["directory", "module"])
def test_a_run_is_the_same_in_a_project(finished: Workspace, tmp_path: Path, module: bool) -> None:
    project = Project.of(finished, tmp_path / "project", module, MADE)
    said = project.run(f"{RUN}/onnx/fp32/manifest.json", f"{RUN}/evaluation/torch.json")
    assert "train_adapter" in said or "Training lora" in said
    assert "Pre-training" not in said
    for name in SAME:
        one, other = (workspace.path / RUN / name for workspace in (finished, project))
        assert sha256(one) == sha256(other), name
    one, other = (read_json(workspace.path / RUN / "provenance.json") for workspace in (finished, project))
    assert one["commit"] == other["commit"]
    assert not (project.path / "work/environments").exists()
