"""What jobs ask for, against what the very run of them took."""

import json
from pathlib import Path

import pytest
from killing import COMMANDS
from support.experiments import FURTHER, TECHNIQUES
from support.planning import plan
from support.workspace import Workspace

from snaketune.core.files import read_jsonl, read_yaml
from snaketune.dag.estimates import Shape, training_memory
from snaketune.dag.recipes import Recipes

MODEL, SCENARIO = "test-phi3", "test-areas"


def matrix(workspace: Workspace) -> Recipes:
    config = read_yaml(workspace.path / "config/config.yaml")
    for key, value in read_yaml(workspace.path / workspace.experiment).items():
        config[key] = (
            {**config[key], **value} if isinstance(config.get(key), dict) and isinstance(value, dict) else value
        )
    return Recipes(config, workspace.path)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def assert_asked(workspace: Workspace, technique: str) -> None:
    """A training job asks for its peak and at most half as much more."""
    shape = Shape.of(read(workspace.path / f"results/models/{MODEL}/base/config.json"))
    card = read(workspace.path / f"results/tokens/{MODEL}/{SCENARIO}/training/card.json")
    longest = max(split["longest"] for split in card["splits"].values())
    resources = read(workspace.path / f"results/runs/{MODEL}/{SCENARIO}/{technique}/seed-1/resources.json")
    peak = max(rank["peak_memory_bytes"] for rank in resources["ranks"])
    recipe = matrix(workspace).training_recipe(MODEL, technique, 1)
    assert 1.0 <= training_memory(recipe, shape, longest).total / peak <= 1.5


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_training_job_asks_for_its_peak_and_at_most_half_as_much_more(finished: Workspace, technique: str) -> None:
    assert_asked(finished, technique)


@pytest.mark.long
@pytest.mark.parametrize("technique", FURTHER)
def test_a_further_technique_does_too(further: Workspace, technique: str) -> None:
    assert_asked(further, technique)


def test_no_job_took_more_than_it_asked_for(finished: Workspace, forks: Path) -> None:
    steps, seen = plan(finished), set()
    for job in read_jsonl(forks / "usage.jsonl"):
        words = " ".join(job["words"])
        for rule, (script, part) in COMMANDS.items():
            if job["directory"] == str(finished.path) and f"scripts/{script}" in words and part in words:
                asked = max(float(figures[3]) for step, figures in steps.items() if step.split()[0] == rule)
                assert job["peak_memory_bytes"] / 1e9 <= asked, words
                seen.add(rule)
    assert len(seen) > 15
