"""The whole workflow, small: every technique on a model that pre-trains in seconds."""

import pytest
from support.experiments import SMALL, small
from support.workspace import Workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small(tmp_path_factory.mktemp("end-to-end"), SMALL)
    ran = workspace.snakemake("--cores", "2")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    return workspace
