"""What a job that runs has said in its log."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TRAINING = re.compile(r"\[(?:[^]]*/)?(?!seed-\d+\])([^]/]+)(?:/seed-\d+)?\] (step \d+/\d+ .*)")


@dataclass
class Running:
    """A job that has started."""

    words: str
    log: list[str]
    began: float

    def last_line(self) -> str:
        """Return how far a training is, as this try has written in its log last."""
        for path in map(Path, self.log):
            with suppress(OSError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_mtime >= self.began - 1:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                    lines = file.read().decode(errors="replace").splitlines()
                    found = next(filter(None, map(TRAINING.fullmatch, reversed(lines))), None)
                    return " ".join(" ".join(found.groups()).split()) if found else ""
        return ""

    def seconds_left(self) -> float:
        """Return the seconds until a training's last step, or 0 if it has said none."""
        found = re.search(r"(\d+) s left$", self.last_line())
        return float(found[1]) if found else 0.0
