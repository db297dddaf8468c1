"""What jobs ask for, against what the very run of them took."""

from pathlib import Path

import pytest
from killing import rules_of
from support.experiments import FURTHER, TECHNIQUES, run_of
from support.planning import plan
from support.workspace import Workspace

from snaketune.core.files import read_json, read_jsonl
from snaketune.dag.estimates import training_memory
from snaketune.dag.recipes import Recipes
from snaketune.dag.shape import Shape

MODEL, SCENARIO = "test-phi3", "test-areas"


@pytest.mark.parametrize("technique", [*TECHNIQUES, *(pytest.param(name, marks=pytest.mark.long) for name in FURTHER)])
def test_a_training_job_asks_for_its_peak_and_at_most_half_as_much_more(
    technique: str, request: pytest.FixtureRequest
) -> None:
    workspace: Workspace = request.getfixturevalue("further" if technique in FURTHER else "finished")
    shape = Shape.of(read_json(workspace.path / f"results/models/{MODEL}/base/config.json"))
    card = read_json(workspace.path / f"results/tokens/{MODEL}/{SCENARIO}/training/card.json")
    longest = max(split["longest"] for split in card["splits"].values())
    peak = max(
        rank["peak_memory_bytes"] for rank in read_json(run_of(workspace, technique) / "resources.json")["ranks"]
    )
    recipe = Recipes(workspace.config(), workspace.path).training_recipe(MODEL, technique, 1)
    assert 1.0 <= training_memory(recipe, shape, longest).total / peak <= 1.5


def test_no_job_took_more_than_it_asked_for(finished: Workspace, forks: Path) -> None:
    steps, seen = plan(finished), set()
    for job in read_jsonl(forks / "usage.jsonl"):
        words = " ".join(job["words"])
        for rule in rules_of(words) if job["directory"] == str(finished.path) else ():
            asked = max(float(figures[3]) for step, figures in steps.items() if step.split()[0] == rule)
            assert job["peak_memory_bytes"] / 1e9 <= asked, words
            seen.add(rule)
    assert len(seen) > 15
