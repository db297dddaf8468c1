"""The whole workflow, small: every technique on a model that pre-trains in seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.experiments import SMALL, small
from support.forks import serving
from support.workspace import Workspace


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[Path]:
    with serving() as directory:
        yield directory


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small(tmp_path_factory.mktemp("end-to-end"), SMALL)
    ran = workspace.snakemake("--cores", "2")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    return workspace
