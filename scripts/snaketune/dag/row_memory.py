"""Estimate the memory of jobs that hold rows: all of a scenario, or the resamples of its test rows."""

from collections.abc import Iterable
from pathlib import Path

# Measured with texts of 12 to 300 words: what a row takes as objects, with its MinHash, and what each byte of it does.
ROW, BYTE = 10e3, 8
LINES = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
SAMPLE = 2**20
# Assumed where a line isn't a row: how long one is; and how much larger packed rows are than their file.
ROW_LENGTH, UNPACKED = 200, 6


def row_bytes(paths: Iterable[Path]) -> float:
    """Return the bytes that the rows of these files take in memory; files that aren't there yet count nothing."""
    return sum(_held(path) for path in paths if path.is_file())


def _held(path: Path) -> float:
    size = path.stat().st_size * (UNPACKED if path.suffix in (".gz", ".parquet") else 1)
    with path.open("rb") as file:
        head = file.read(SAMPLE)
    rows = size * head.count(b"\n") / len(head) if head and path.suffix in LINES else size / ROW_LENGTH
    return ROW * rows + BYTE * size


def resample_bytes(rows: int, samples: int) -> int:
    """Return the bytes of how often each row is drawn in each sample: 16 bits each, of the last two numbers of rows."""
    return 2 * 2 * samples * rows
