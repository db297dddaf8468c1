"""The whole workflow, small: every technique on a model that pre-trains in seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.experiments import FURTHER, SMALL, small, technique_at
from support.forks import serving
from support.workspace import Workspace


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[Path]:
    with serving() as directory:
        yield directory


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small(tmp_path_factory.mktemp("end-to-end"), SMALL)
    workspace.run()
    return workspace


@pytest.fixture
def copy(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished experiment that a test may change."""
    return finished.copied(tmp_path / "copy")


@pytest.fixture(scope="session")
def further(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy whose experiment has the techniques that the other leaves out, and no export."""
    workspace = finished.copied(tmp_path_factory.mktemp("further") / "copy")
    workspace.write("config/techniques/zero2.yaml", technique_at("zero2", 0.0003))
    workspace.write(workspace.experiment, {**SMALL, "techniques": ["full", *FURTHER], "precisions": []})
    workspace.run()
    return workspace
