"""How long a cluster's faults took, each of several times."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from snaketune.core.files import read_json, write_json

TIMES = 10


@dataclass
class Seconds:
    """Of each time that a fault was borne; a failed one has none."""

    found: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def of(self, test: str) -> Iterator[None]:
        mine = self.found.setdefault(test.removeprefix("test_"), [])
        started = time.monotonic()
        yield
        mine.append(round(time.monotonic() - started, 1))

    def write(self, path: Path, slurm: str) -> None:
        """Faults that weren't done this time keep their figures."""
        before = read_json(path)["seconds"] if path.exists() else {}
        machine = {"slurm": slurm, "python": platform.python_version(), "cores": os.cpu_count()}
        write_json(path, {**machine, "times": TIMES, "seconds": before | self.found})
