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


@pytest.fixture(scope="session")
def worker(forks: Path) -> Iterator[Worker]:
    with working(forks) as found:
        yield found
