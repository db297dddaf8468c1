"""A finished experiment without its cost: placeholder files that Snakemake itself has recorded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from experiments import MINE, OTHERS, TICKETS, UNTRAINED
from workspace import Workspace, made


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return made(Workspace.make(tmp_path_factory.mktemp("dag"), UNTRAINED))


@pytest.fixture(scope="session")
def finished_others(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Another finished experiment: a hub model and the user's own rows."""
    workspace = Workspace.make(tmp_path_factory.mktemp("others"), OTHERS, {"config/scenarios/mine.yaml": MINE})
    (workspace.path / "data/tickets.jsonl").write_text(TICKETS)
    return made(workspace)


def files_of(workspace: Workspace) -> dict[Path, bytes]:
    folders = ("config", "scripts", "report", "envs", "rules", "data", "profiles")
    found = (path for folder in folders for path in (workspace.path / folder).rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if "__pycache__" not in path.parts}


def put_back(workspace: Workspace) -> Iterator[Workspace]:
    before = files_of(workspace)
    yield workspace
    for path, content in files_of(workspace).items():
        if path not in before:
            path.unlink()
        elif content != before[path]:
            path.write_bytes(before[path])
    for path in before:
        if not path.exists():
            path.write_bytes(before[path])


@pytest.fixture
def edited(finished: Workspace) -> Iterator[Workspace]:
    """The finished experiment, whose tracked files are put back after the test."""
    yield from put_back(finished)


@pytest.fixture
def edited_others(finished_others: Workspace) -> Iterator[Workspace]:
    yield from put_back(finished_others)
