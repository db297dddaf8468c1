"""Scripts run in forks of a process that has imported their libraries."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.forks import serving


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[Path]:
    with serving() as directory:
        yield directory
