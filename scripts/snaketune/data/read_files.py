"""Read local files, or a hub dataset, as raw rows; all faults of the data are collected."""

import csv
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from snaketune.core.layout import SPLITS
from snaketune.data.params import SourceParams
from snaketune.data.raw_rows import Faults, Row, describe
from snaketune.data.read_hub import hub_rows
from snaketune.data.strict_json import checked, parsed

LONGEST_LINE = 10 * 2**20

# Takes a place in a file, such as ":17" or ", row 17", and what is wrong there.
Report = Callable[[str, str], None]
# Rows with their numbers; faulty ones are left out.
NumberedRows = Iterator[tuple[int, dict[str, Any]]]


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
    if isinstance(given, list):
        files = [("", part["path"], f"{n}/{Path(part['path']).name}") for n, part in enumerate(given, start=1)]
    elif isinstance(given, dict):
        files = [(split, given[split], f"{split}/{Path(given[split]).name}") for split in SPLITS if split in given]
    else:
        files = [("", given, Path(given).name)]
    for split, name, key in files:
        yield from _rows_of_file(Path(name), split, key, faults)


def _rows_of_file(path: Path, split: str, key: str, faults: Faults) -> Iterator[Row]:
    def report(place: str, fault: str) -> None:
        faults.add(f"{path}{place}", fault)

    rows, before = 0, faults.count
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    reader, place = READERS.get(suffix.lower(), (None, ""))
    if reader is None:
        known = f"expected {', '.join(READERS)}; all but .parquet may have .gz after it"
        report("", f"unknown kind of file {suffix!r}; {known}")
    elif reader is _parquet and path.suffix == ".gz":
        report("", "Parquet in gzip; unpack it")
    elif path.is_dir():
        report("", f"is a folder; expected a {suffix} file")
    elif not path.exists():
        report("", "no such file")
    else:
        try:
            for number, content in reader(path, report):
                rows += 1
                yield Row(f"{path}{place.format(number)}", f"{key}:{number}", split or None, content, str(path))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            report("", f"broken gzip ({error}); compress it again")
        except PermissionError:
            report("", "no permission to read it")
    if not rows and faults.count == before:
        report("", "empty; expected one row or more")


def _lines(path: Path, report: Report, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of UTF-8 text, with their line ends; an empty string stands for a faulty one."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(longest + 1), b""), start=1):
            if len(line) > longest:
                fault = f"a line of more than {longest // 2**20} MiB; is it one row?"
            elif number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                fault = "UTF-16; save the file as UTF-8"
            elif (at := line.find(b"\0")) >= 0:
                fault = f"a NUL byte (byte {at + 1}); is it UTF-16, or no text?"
            else:
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    report(f":{number}", f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8")
                    yield number, ""
                continue
            report(f":{number}", fault)
            yield number, ""
            return


def _jsonl(path: Path, report: Report) -> NumberedRows:
    for number, line in _lines(path, report):
        if line.strip():
            try:
                yield number, checked(parsed(line.rstrip("\r\n")))
            except ValueError as error:
                report(f":{number}", error.args[-1])


def _json(path: Path, report: Report) -> NumberedRows:
    lines = [line for _, line in _lines(path, report, longest=sys.maxsize - 1)]
    if "" in lines or not any(map(str.strip, lines)):
        return
    try:
        rows = parsed("".join(lines))
    except ValueError as error:
        line, fault = error.args
        hint = "; is it JSONL, one object a line? Then name it .jsonl" if "Extra data" in fault else ""
        report(f":{line}", fault + hint)
        return
    if not isinstance(rows, list):
        report("", f"expected an array of objects, found {describe(rows)}; one object a line goes in a .jsonl")
        return
    for number, row in enumerate(rows, start=1):
        try:
            yield number, checked(row)
        except ValueError as error:
            report(f", row {number}", error.args[0])


def _separated(path: Path, report: Report, delimiter: str) -> NumberedRows:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader((line for _, line in _lines(path, report)), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = next(reader, [])
        flaws = [f"the header has the column {name!r} twice" for name in header if header.count(name) > 1]
        flaws += [] if header else ["the first line is empty, expected the names of the columns"]
        flaws += [f"column {n} of the header has no name" for n, name in enumerate(header, 1) if not name.strip()]
        if len(header) == 1 and any(one in header[0] for one in ";,\t|"):
            expected = "tabs" if delimiter == "\t" else "commas"
            flaws.append(f"one column, named {header[0]!r}: save the file with {expected} between its columns")
        if flaws:
            report(":1", flaws[0])
            return
        start = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                report(f":{start}", f"{len(fields)} fields, but the header has {len(header)}")
            elif fields:
                yield start, dict(zip(header, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        report(f":{start}", f"not CSV: {error}; is a quote left open?")


def _text(path: Path, report: Report) -> NumberedRows:
    for number, line in _lines(path, report):
        if line.strip():
            yield number, {"text": line.strip()}


def _parquet(path: Path, report: Report) -> NumberedRows:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if twice := [name for name in names if names.count(name) > 1]:
            report("", f"the column {twice[0]!r} is there twice")
            return
        yield from enumerate((row for batch in file.iter_batches() for row in batch.to_pylist()), start=1)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        report("", f"not Parquet ({str(error).splitlines()[0][:120]})")


# Of each kind of file: its reader, and the place of a row in it.
READERS: dict[str, tuple[Callable[[Path, Report], NumberedRows], str]] = {
    ".jsonl": (_jsonl, ":{}"),
    ".ndjson": (_jsonl, ":{}"),
    ".json": (_json, ", row {}"),
    ".csv": (partial(_separated, delimiter=","), ":{}"),
    ".tsv": (partial(_separated, delimiter="\t"), ":{}"),
    ".parquet": (_parquet, ", row {}"),
    ".txt": (_text, ":{}"),
}
