"""The whole workflow, small: every technique on a model that pre-trains in seconds."""

from pathlib import Path

import pytest
import yaml
from experiments import ALL_WEIGHTS, AREAS, MODEL, SMALL
from workspace import REPOSITORY, Workspace


def technique_at(name: str, rate: float) -> dict[str, object]:
    content = yaml.safe_load((REPOSITORY / f"config/techniques/{name}.yaml").read_text())
    return {**content, "learning_rate": rate}


def small(path: Path, experiment: dict[str, object]) -> Workspace:
    """A workspace whose models, data and rates are small enough to run whole in minutes."""
    scenario = yaml.safe_load((REPOSITORY / "config/scenarios/classification.yaml").read_text())
    scenario["source"]["areas"] = AREAS
    scenario["rows_per_label"] = {"train": 30, "validation": 4, "test": 8}
    files = {
        "config/models/test-phi3.yaml": MODEL,
        "config/scenarios/test-areas.yaml": scenario,
        **{f"config/techniques/{name}.yaml": technique_at(name, 0.0003) for name in ALL_WEIGHTS},
    }
    workspace = Workspace.make(path, experiment, files)
    config = yaml.safe_load((workspace.path / "config/config.yaml").read_text())
    # A --configfile can only add to a mapping: the libraries are replaced in the file itself.
    config["corpus"]["libraries"] = {"networkx": "networkx", "numpy": "numpy"}
    workspace.write("config/config.yaml", config)
    return workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small(tmp_path_factory.mktemp("end-to-end"), SMALL)
    ran = workspace.snakemake("--cores", "2")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    return workspace
