"""Every kind of file, and the hub, gives the same rows, each with its place."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from snaketune.config.scenario import Scenario
from snaketune.core.errors import UserError
from snaketune.data.raw_rows import Faults, Row, describe
from snaketune.data.read_files import read_rows

ROWS = [{"text": "Grüße, “all”", "label": "a"}, {"text": 'two\nlines and a "quote"', "label": "b"}]
CSV = 'text,label\n"Grüße, “all”",a\n\n"two\nlines and a ""quote""",b\n'


def source(**given: Any) -> dict[str, Any]:
    return Scenario.model_validate({"task": "classification", "source": given}).model_dump()["source"]


def read(**given: Any) -> list[Row]:
    faults = Faults()
    rows = list(read_rows(source(**given), faults))
    faults.stop()
    return rows


def parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS), [":1", ":2"]),
        ("a.ndjson", "\n" + "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), [":2", ":4"]),
        ("a.json", json.dumps(ROWS, indent=1), [", row 1", ", row 2"]),
        ("a.csv", CSV, [":2", ":4"]),
        ("a.CSV", CSV.replace("\n", "\r\n"), [":2", ":4"]),
        ("a.csv.gz", CSV, [":2", ":4"]),
        ("a.tsv", CSV.replace(",", "\t").replace("Grüße\t", "Grüße,"), [":2", ":4"]),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_files_are_read_with_their_places(
    name: str, content: str, places: list[str], mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = (mark + content).encode()
    Path(name).write_bytes(gzip.compress(written) if name.endswith(".gz") else written)
    rows = read(path=name)
    assert [row.where for row in rows] == [f"{name}{place}" for place in places]
    assert [{k: v.replace("\r\n", "\n") for k, v in row.content.items()} for row in rows] == ROWS


def test_parquet_is_read_with_lists_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, {"tokens": [["a", "b"], []], "label": ["x", None]})
    rows = read(path=str(path))
    assert [row.content for row in rows] == [{"tokens": ["a", "b"], "label": "x"}, {"tokens": [], "label": None}]
    assert [row.where for row in rows] == [f"{path}, row 1", f"{path}, row 2"]


def test_a_text_file_holds_one_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\n  two  \n")
    assert [(row.content, row.key) for row in read(path=str(path))] == [
        ({"text": "one"}, "a.txt:1"),
        ({"text": "two"}, "a.txt:3"),
    ]


def test_files_of_splits_are_read_in_the_order_of_the_splits_with_ids_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    given = source(path={split: f"{tmp_path}/{split}/a.jsonl" for split in ("test", "train")})
    rows = list(read_rows(given, Faults()))
    assert [(row.split, row.key) for row in rows] == [("train", "train/a.jsonl:1"), ("test", "test/a.jsonl:1")]


@pytest.mark.parametrize("spelling", ["a.jsonl", "./a.jsonl", "b/../a.jsonl"])
def test_ids_of_mixed_files_are_the_same_however_a_path_is_written(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    for name in ("a.jsonl", "b/a.jsonl"):
        Path(name).write_text(json.dumps(ROWS[0]) + "\n")
    assert [row.key for row in read(path=[{"path": spelling}, {"path": "b/a.jsonl"}])] == ["1/a.jsonl:1", "2/a.jsonl:1"]
    with pytest.raises(ValidationError, match="path lists a file twice"):
        source(path=[{"path": "a.jsonl"}, {"path": spelling}])


def test_faults_of_several_files_and_lines_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n[]\n{"a"}\n\xff\n{"a": 2}\n')
    (tmp_path / "b.csv").write_text("a,b\n1\n1,2\n")
    faults = Faults()
    given = source(path={"train": f"{tmp_path}/a.jsonl", "test": f"{tmp_path}/b.csv"})
    assert [row.content for row in read_rows(given, faults)] == [{"a": 1}, {"a": 2}, {"a": "1", "b": "2"}]
    assert [shown.split(": ")[0].removeprefix(f"{tmp_path}/") for shown in faults.shown] == [
        "a.jsonl:2",
        "a.jsonl:3",
        "a.jsonl:4",
        "b.csv:2",
    ]


HUB = {"hub": "owner/name", "revision": "0" * 40, "configuration": "en", "splits": {"train": "train[:2]"}}


def test_the_hub_is_asked_for_a_revision_and_classes_get_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> datasets.Dataset:
        asked.append((names, options))
        classes = datasets.ClassLabel(names=["O", "B-x"])
        features = datasets.Features(
            {
                "label": classes,
                "tags": datasets.Sequence(classes),
                "nested": {"label": classes, "text": datasets.Value("string")},
            }
        )
        rows = {
            "label": [1, -1],
            "tags": [[0, 1], None],
            "nested": [{"label": 0, "text": "a"}, {"label": None, "text": None}],
        }
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read(**HUB)
    assert asked == [(("owner/name", "en"), {"revision": "0" * 40, "split": "train[:2]"})]
    assert [row.content for row in rows] == [
        {"label": "B-x", "tags": ["O", "B-x"], "nested": {"label": "O", "text": "a"}},
        {"label": None, "tags": None, "nested": {"label": None, "text": None}},
    ]
    assert rows[1][:3] == ("owner/name train[:2], row 2", "train:2", "train")


def test_a_hub_out_of_reach_gives_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(
        UserError,
        match=r"source\.hub: owner/name \(en, split train\[:2\]\) at revision 000000000000 could not be loaded",
    ):
        read(**HUB)


def test_a_long_value_is_cut_in_a_message() -> None:
    assert describe("a" * 100) == "'" + "a" * 59 + "…"
