"""What jobs ask for, against what the very run of them took."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.experiments import TECHNIQUES
from support.planning import plan
from support.training_runs import REPOSITORY, command, recipe_of
from support.workspace import Workspace

from snaketune.core.files import read_yaml
from snaketune.dag.estimates import Shape, training_memory
from snaketune.dag.params import Recipes

MODEL, SCENARIO = "test-phi3", "test-areas"
# Rules, and where each is timed.
FOLDERS = {
    "train_tokenizer": "train_tokenizer",
    "pretrain_model": "pretrain_model",
    "prepare_data": "prepare_data",
    "tokenize_data": "tokenize_data",
    "merge_adapter": "merge",
    "evaluate_torch": "evaluate",
    "export_onnx": "export",
    "check_parity": "check_parity",
}


def matrix(workspace: Workspace) -> Recipes:
    config = read_yaml(workspace.path / "config/config.yaml")
    for key, value in read_yaml(workspace.path / workspace.experiment).items():
        config[key] = (
            {**config[key], **value} if isinstance(config.get(key), dict) and isinstance(value, dict) else value
        )
    return Recipes(config, workspace.path)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def assert_asked(recipe: dict, finished: Workspace, resources: Path) -> None:
    shape = Shape.of(read(finished.path / f"results/models/{MODEL}/base/config.json"))
    card = read(finished.path / f"results/tokens/{MODEL}/{SCENARIO}/training/card.json")
    longest = max(split["longest"] for split in card["splits"].values())
    peak = max(rank["peak_memory_bytes"] for rank in read(resources)["ranks"])
    assert 1.0 <= training_memory(recipe, shape, longest).total / peak <= 1.5


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_training_job_asks_for_its_peak_and_at_most_half_as_much_more(finished: Workspace, technique: str) -> None:
    recipe = matrix(finished).training_recipe(MODEL, technique, 1)
    run = f"results/runs/{MODEL}/{SCENARIO}/{technique}/seed-1"
    assert_asked(recipe, finished, finished.path / run / "resources.json")


@pytest.mark.parametrize("technique", ["zero2", "lora-zero3", "qdora", "peft-vera"])
def test_a_technique_that_the_experiment_leaves_out(technique: str, finished: Workspace, tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(finished.path / f"results/models/{MODEL}/base")
    (tmp_path / "tokens").symlink_to(finished.path / f"results/tokens/{MODEL}/{SCENARIO}/training")
    recipe = recipe_of(technique, epochs=1, batch_rows=15, micro_batch_rows=8)
    launcher = ["scripts/launch.py", "--ranks", str(recipe["world_size"])] if recipe["world_size"] > 1 else []
    words = [sys.executable, *launcher, *command(tmp_path, tmp_path, recipe)]
    ran = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    assert_asked(recipe, finished, tmp_path / "run/resources.json")


def test_no_job_took_more_than_it_asked_for(finished: Workspace) -> None:
    """Snakemake looks every few seconds: what it saw is at most the peak."""
    steps = plan(finished)
    for rule, folder in FOLDERS.items():
        paths = list((finished.path / "logs/benchmarks" / folder).rglob("*.tsv"))
        assert paths
        asked = max(float(figures[3]) for step, figures in steps.items() if step.split()[0] == rule)
        for path in paths:
            with path.open(newline="") as file:
                [row] = csv.DictReader(file, delimiter="\t")
            assert float(row["max_rss"]) * 2**20 / 1e9 <= asked, path
