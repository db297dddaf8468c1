"""A finished experiment without its cost: placeholder files that Snakemake itself has recorded."""

from collections.abc import Iterator

import pytest
from experiments import UNTRAINED
from workspace import Workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Every output exists, and `--touch` has written the records of params and inputs."""
    workspace = Workspace.make(tmp_path_factory.mktemp("dag"), UNTRAINED)
    for name in workspace.plans():
        path = workspace.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    touched = workspace.snakemake("--touch", "--forceall", "--cores", "1")
    assert touched.returncode == 0, touched.stderr
    assert workspace.pending() == set()
    return workspace


@pytest.fixture
def edited(finished: Workspace) -> Iterator[Workspace]:
    """The finished experiment, whose tracked files are put back after the test."""
    watched = [
        path
        for folder in ("config", "scripts", "report", "envs", "rules")
        for path in (finished.path / folder).rglob("*")
        if path.is_file()
    ]
    before = {path: path.read_bytes() for path in watched}
    yield finished
    for path in {
        p
        for folder in ("config", "scripts", "report", "envs")
        for p in (finished.path / folder).rglob("*")
        if p.is_file()
    } - set(before):
        if "__pycache__" not in path.parts:
            path.unlink()
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
