"""Read local files, or a hub dataset, as raw rows; all faults of the data are collected."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from snaketune.core.layout import SPLITS
from snaketune.data.params import SourceParams
from snaketune.data.raw_rows import Faults, Row, describe
from snaketune.data.read_hub import hub_rows
from snaketune.data.strict_json import checked, parsed

LONGEST_LINE = 10 * 2**20


def read_rows(source: SourceParams, faults: Faults) -> Iterator[Row]:
    """Yield the rows of the files or the hub dataset in a scenario's ``source``.

    A row has a split if the source names a file, or a split of the hub, for it.

    Raises:
        UserError: the dataset can't be loaded. Faults of files go to ``faults``.
    """
    if source["hub"]:
        yield from hub_rows(source)
        return
    given = source["path"] or {}
    # In the order of the splits: the keys of --recipe are sorted.
    files = [(split, given[split]) for split in SPLITS if split in given] if isinstance(given, dict) else [("", given)]
    for split, name in files:
        rows, before = 0, faults.count
        for where, number, content in _file(Path(name), faults):
            rows += 1
            if content is not None:
                key = f"{Path(name).name}:{number}"
                yield Row(f"{name}{where}", f"{split}/{key}" if split else key, split or None, content)
        if not rows and faults.count == before:
            faults.add(name, "empty; expected one row or more")


# ":17" or ", row 17", that number, and the row, or None if it is faulty.
_Rows = Iterator[tuple[str, int, dict[str, Any] | None]]


def _file(path: Path, faults: Faults) -> _Rows:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    reader = READERS.get(suffix.lower())
    if reader is None:
        faults.add(
            str(path),
            f"unknown kind of file {suffix!r}; expected {', '.join(READERS)}; all but .parquet may have .gz after it",
        )
    elif reader is _parquet and path.suffix == ".gz":
        faults.add(str(path), "Parquet in gzip; unpack it")
    elif path.is_dir():
        faults.add(str(path), f"is a folder; expected a {suffix} file")
    elif not path.exists():
        faults.add(str(path), "no such file")
    else:
        try:
            yield from reader(path, faults)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            faults.add(str(path), f"broken gzip ({error}); compress it again")
        except PermissionError:
            faults.add(str(path), "no permission to read it")


def _lines(path: Path, faults: Faults, longest: int | None = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of UTF-8 text, with their line ends; faulty ones are left out."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        number = 0
        while line := file.readline(-1 if longest is None else longest + 1):
            number += 1
            if longest is not None and len(line) > longest:
                faults.add(f"{path}:{number}", f"a line of more than {longest // 2**20} MiB; is it one row?")
                return
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                faults.add(f"{path}:1", "UTF-16; save the file as UTF-8")
                return
            if (at := line.find(b"\0")) >= 0:
                faults.add(f"{path}:{number}", f"a NUL byte (byte {at + 1}); is it UTF-16, or no text?")
                return
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                faults.add(f"{path}:{number}", f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8")


def _jsonl(path: Path, faults: Faults) -> _Rows:
    for number, line in _lines(path, faults):
        if not line.strip():
            continue
        where, row = f":{number}", None
        try:
            row = checked(parsed(line.rstrip("\r\n")), f"{path}{where}", faults)
        except ValueError as error:
            faults.add(f"{path}{where}", error.args[1])
        yield where, number, row


def _json(path: Path, faults: Faults) -> _Rows:
    before = faults.count
    text = "".join(line for _, line in _lines(path, faults, longest=None))
    if not text.strip() or faults.count > before:
        return
    try:
        rows = parsed(text)
    except ValueError as error:
        line, fault = error.args
        hint = "; is it JSONL, one object a line? Then name it .jsonl" if "Extra data" in fault else ""
        faults.add(f"{path}:{line}", fault + hint)
        return
    if not isinstance(rows, list):
        faults.add(
            str(path), f"expected an array of objects, found {describe(rows)}; one object a line goes in a .jsonl"
        )
        return
    for number, row in enumerate(rows, start=1):
        where = f", row {number}"
        yield where, number, checked(row, f"{path}{where}", faults)


def _separated(delimiter: str) -> Callable[[Path, Faults], _Rows]:
    def read(path: Path, faults: Faults) -> _Rows:
        csv.field_size_limit(LONGEST_LINE)
        read_lines = 0

        def lines() -> Iterator[str]:
            nonlocal read_lines
            for number, line in _lines(path, faults):
                read_lines = number
                yield line

        reader = csv.reader(lines(), delimiter=delimiter, strict=True)
        start = 1
        try:
            header = next(reader, None)
            if header is None or not _good_header(header, path, faults):
                return
            start = read_lines + 1
            for fields in reader:
                if fields:
                    fits = len(fields) == len(header)
                    if not fits:
                        faults.add(f"{path}:{start}", f"{len(fields)} fields, but the header has {len(header)}")
                    yield f":{start}", start, dict(zip(header, fields, strict=True)) if fits else None
                start = read_lines + 1
        except csv.Error as error:
            faults.add(f"{path}:{start}", f"not CSV: {error}; is a quote left open?")

    return read


def _good_header(header: list[str], path: Path, faults: Faults) -> bool:
    fault = None
    if twice := [name for name in header if header.count(name) > 1]:
        fault = f"the header has the column {twice[0]!r} twice"
    elif not all(name.strip() for name in header):
        fault = f"column {next(i for i, name in enumerate(header, 1) if not name.strip())} of the header has no name"
    if fault:
        faults.add(f"{path}:1", fault)
    return fault is None


def _text(path: Path, faults: Faults) -> _Rows:
    for number, line in _lines(path, faults):
        if line.strip():
            yield f":{number}", number, {"text": line.strip()}


def _parquet(path: Path, faults: Faults) -> _Rows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if twice := [name for name in names if names.count(name) > 1]:
            faults.add(str(path), f"the column {twice[0]!r} is there twice")
            return
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f", row {number}", number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        faults.add(str(path), f"not Parquet ({str(error).splitlines()[0][:120]})")


READERS: dict[str, Callable[[Path, Faults], _Rows]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
    ".txt": _text,
}
