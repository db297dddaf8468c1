"""Tables as CSV."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.core.files import write_text

Row = dict[str, Any]


def read(path: Path, delimiter: str = ",") -> list[Row]:
    """Return the rows of a table; every value is a string."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def write(path: Path, columns: Iterable[str], rows: Iterable[Row]) -> None:
    """Write the given columns of each row; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
