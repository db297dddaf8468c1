"""Scripts run in forks of a process that has imported their libraries."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.forks import serving
from support.services.hosting import Worker, working


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[Path]:
    with serving() as directory:
        yield directory


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with working(tmp_path_factory.mktemp("worker")) as found:
        yield found
