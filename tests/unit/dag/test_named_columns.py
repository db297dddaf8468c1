"""A wrong name under `columns:` is found before any job starts, from the first row of a file."""

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snaketune.config.scenario import Scenario
from snaketune.core.errors import UserError
from snaketune.dag.named_columns import check_columns

CSV = "ticket,category\nIt is broken,bug\n"
JSONL = '{"ticket": "a", "meta": {"kind": "b"}}\n'
TEXT = {"text": "ticket"}


def check(folder: Path, name: str, content: bytes | str | None, columns: dict[str, str], task: str) -> None:
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    scenario = Scenario.model_validate({"task": task, "source": {"path": name, "columns": columns}})
    matrix: Any = SimpleNamespace(root=folder, scenarios={"mine": scenario})
    check_columns(matrix)


@pytest.mark.parametrize(
    ("name", "content", "wrong", "says"),
    [
        ("a.csv", CSV, "categroy", "no column 'categroy'; it has ticket, category; did you mean category\\?$"),
        ("a.tsv", CSV.replace(",", "\t"), "kind", "no column 'kind'; it has ticket, category$"),
        ("a.csv.gz", gzip.compress(CSV.encode()), "categroy", "no column .*did you mean category"),
        ("a.jsonl", JSONL, "meta.knd", "no column 'meta.knd'; it has ticket, meta"),
    ],
)
def test_a_column_that_a_file_lacks(tmp_path: Path, name: str, content: Any, wrong: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"^config/scenarios/mine\.yaml: source\.columns\.label: .*{name} has {says}"):
        check(tmp_path, name, content, TEXT | {"label": wrong}, "classification")


@pytest.mark.parametrize(
    ("name", "content", "columns", "task"),
    [
        ("a.csv", CSV, TEXT | {"label": "category"}, "classification"),
        ("a.jsonl", JSONL, TEXT | {"label": "meta.kind"}, "classification"),
        ("missing.csv", None, TEXT, "language-modeling"),
        ("a.csv", "", TEXT, "language-modeling"),
        ("a.jsonl", '{"a": "b", "c": "d"}\n', {"source": "a", "target": "c", "language": "e"}, "translation"),
        ("a.json", "[{}]", TEXT, "language-modeling"),
        ("a.csv", CSV, {}, "classification"),
    ],
    ids=["csv", "nested", "no file", "empty file", "optional in JSONL", "json", "no columns"],
)
def test_what_is_there_or_unknown_passes(tmp_path: Path, name: str, content: Any, columns: Any, task: str) -> None:
    check(tmp_path, name, content, columns, task)


def test_only_the_first_row_is_read(tmp_path: Path) -> None:
    # Later lines that aren't UTF-8 or JSON are the job's to report.
    check(tmp_path, "a.jsonl", JSONL.encode() + b"\xff\n" * 3, TEXT, "language-modeling")
