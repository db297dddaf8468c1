"""A finished experiment without its cost: placeholder files that Snakemake itself has recorded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.experiments import ELSEWHERE, MINE, OTHERS, TICKETS, UNTRAINED
from support.workspace import Workspace, made


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return made(Workspace.make(tmp_path_factory.mktemp("dag"), UNTRAINED))


def of_tickets(path: Path, experiment: dict[str, object]) -> Workspace:
    workspace = Workspace.make(path, experiment, {"config/scenarios/mine.yaml": MINE})
    (workspace.path / "data/tickets.jsonl").write_text(TICKETS)
    return made(workspace)


@pytest.fixture(scope="session")
def finished_others(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Another finished experiment: a hub model and the user's own rows."""
    return of_tickets(tmp_path_factory.mktemp("others"), OTHERS)


@pytest.fixture(scope="session")
def finished_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A third: what a service and a cluster's operator trained."""
    return of_tickets(tmp_path_factory.mktemp("elsewhere"), ELSEWHERE)


def files_of(workspace: Workspace) -> dict[Path, bytes]:
    folders = ("config", "scripts", "tools", "report", "envs", "rules", "data", "profiles")
    found = (path for folder in folders for path in (workspace.path / folder).rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if "__pycache__" not in path.parts}


def put_back(workspace: Workspace) -> Iterator[Workspace]:
    before = files_of(workspace)
    yield workspace
    after = files_of(workspace)
    for path in after.keys() - before.keys():
        path.unlink()
    for path, content in before.items():
        if after.get(path) != content:
            path.write_bytes(content)


@pytest.fixture
def edited(finished: Workspace) -> Iterator[Workspace]:
    """The finished experiment, whose tracked files are put back after the test."""
    yield from put_back(finished)


@pytest.fixture
def edited_others(finished_others: Workspace) -> Iterator[Workspace]:
    yield from put_back(finished_others)


@pytest.fixture
def edited_elsewhere(finished_elsewhere: Workspace) -> Iterator[Workspace]:
    yield from put_back(finished_elsewhere)
