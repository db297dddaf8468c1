"""Every kind of malformed data ends with one message that names its place, and nothing is written."""

import gzip
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

import prepare_data
from snaketune.config.scenario import Scenario
from snaketune.core import errors
from snaketune.data.read_files import LONGEST_LINE

CORPUS = Path(__file__).parent / "bad_data"
CASES = yaml.safe_load((CORPUS / "cases.yaml").read_text(encoding="utf-8"))
GOOD = b'{"text": "amber bridge", "label": "a"}\n'


def parquet(columns: dict[str, list[Any]]) -> bytes:
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), written)
    return written.getvalue()


# Not text, or too large to keep.
MADE: dict[str, Callable[[], bytes]] = {
    "utf-16.jsonl": lambda: GOOD.decode().encode("utf-16"),
    "utf-16-without-mark.jsonl": lambda: GOOD.decode().encode("utf-16-le"),
    "nul-byte.jsonl": lambda: GOOD + b'{"text": "\0", "label": "a"}\n',
    "nested-too-deep.jsonl": lambda: b'{"text": ' + b"[" * 200_000,
    "huge-number.jsonl": lambda: b'{"text": "a", "label": ' + b"1" * 5000 + b"}\n",
    "huge-line.jsonl": lambda: GOOD + b'{"text": "' + b"a" * LONGEST_LINE + b'", "label": "a"}\n',
    "parquet-cut-off.parquet": lambda: parquet({"text": ["a"], "label": ["b"]})[:-20],
    "parquet-without-rows.parquet": lambda: parquet({"text": [], "label": []}),
    "parquet-numbers.parquet": lambda: parquet({"text": ["a"], "label": [2.0]}),
    "parquet-nan.parquet": lambda: parquet({"text": [None, float("nan")], "label": ["a", "b"]}),
    "parquet-in-gzip.parquet.gz": lambda: gzip.compress(parquet({"text": ["a"], "label": ["b"]})),
    "gzip-cut-off.jsonl.gz": lambda: gzip.compress(GOOD * 50)[:-20],
}


def test_every_file_is_of_a_case() -> None:
    used = {name for case in CASES for name in files_of(case)}
    assert {path.name for path in CORPUS.iterdir()} <= used | {"cases.yaml"}


def files_of(case: dict[str, Any]) -> list[str]:
    path = case["scenario"]["source"]["path"]
    return list(path.values()) if isinstance(path, dict) else [path]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_bad_data_ends_with_one_message(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in files_of(case):
        if name in MADE:
            Path(name).write_bytes(MADE[name]())
        elif (CORPUS / name).exists():
            shutil.copyfile(CORPUS / name, name)
    if case["name"] == "folder":
        Path("folder.jsonl").mkdir()
    scenario = Scenario.model_validate(case["scenario"]).model_dump()
    recipe = json.dumps({"scenario": scenario, "source_digests": {}})
    command = ["prepare_data.py", "--recipe", recipe, "--source", *files_of(case), "--output-directory", "out"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        errors.run(prepare_data.main)
    shown = capsys.readouterr()
    assert ended.value.code == 1
    assert shown.err.startswith("error: ")
    assert shown.err.count("error: ") == 1
    assert "Traceback" not in shown.err
    assert shown.out == ""
    for part in case["says"]:
        assert part in shown.err
    assert any(name in shown.err for name in files_of(case))
    assert not Path("out").exists()
