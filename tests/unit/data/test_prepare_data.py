"""Examples of every task are split by their groups and written with a card that says what was kept."""

import collections
import dataclasses
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prepare_data
from snaketune.config.scenario import Scenario
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, sha256, write_jsonl
from snaketune.core.layout import SPLITS
from snaketune.data.examples import Example


def words(seed: int, count: int = 12) -> str:
    """A text that shares no three words in a row with that of another seed."""
    return " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(0, 10**6, count))


def example(number: int, split: str) -> Example:
    return Example(str(number), {"text": words(number), "label": "a"}, str(number), split)


@given(st.lists(st.text(max_size=2), min_size=1), st.floats(0, 0.5), st.floats(0, 0.49))
def test_a_group_is_never_divided_between_splits(groups: list[str], validation: float, test: float) -> None:
    examples = [Example("", {}, group) for group in groups]
    prepare_data.assign_splits(examples, {"validation": validation, "test": test})
    splits = collections.defaultdict(set)
    for one in examples:
        splits[one.group].add(one.split)
    assert all(len(found) == 1 for found in splits.values())


def test_splits_have_their_shares_of_the_groups_whatever_the_order_of_rows() -> None:
    examples = [Example("", {}, str(n // 2)) for n in range(200)]
    backwards = [dataclasses.replace(one) for one in examples[::-1]]
    for rows in (examples, backwards):
        prepare_data.assign_splits(rows, {"validation": 0.1, "test": 0.2})
    count = collections.Counter(one.split for one in examples)
    assert count == pytest.approx({"train": 140, "validation": 20, "test": 40}, abs=2)
    assert backwards[::-1] == examples


def test_a_split_that_the_source_fixes_stays() -> None:
    examples = [example(n, "validation") for n in range(10)]
    prepare_data.assign_splits(examples, {"validation": 0.1, "test": 0.2})
    assert {one.split for one in examples} == {"validation"}


@pytest.mark.parametrize("given", [["train"], ["train", "test"], ["train", "validation"], list(SPLITS)])
def test_splits_that_the_data_lack_are_taken_from_training(given: list[str]) -> None:
    examples = [example(n, split) for split in given for n in range(100)]
    prepare_data.assign_splits(examples, {"validation": 0.1, "test": 0.2})
    shares = {"validation": 10, "test": 20}
    taken = {split: rows for split, rows in shares.items() if split not in given}
    expected = dict.fromkeys(given, 100) | taken | {"train": 100 - sum(taken.values())}
    assert collections.Counter(one.split for one in examples) == expected
    assert {one.given_split for one in examples if one.split in taken} <= {"train"}


class Case(NamedTuple):
    """A task's n-th row, its templates, and what is asked, answered and scored of a row."""

    row: Callable[[int], dict[str, Any]]
    written: Callable[[dict[str, Any]], tuple[str, str, Any]]
    templates: Mapping[str, str] = types.MappingProxyType({})


CASES = {
    "classification": Case(
        lambda n: {"text": words(n), "label": "ab"[n // 10 % 2]},
        lambda row: (f"Which?\n{row['text']}", f"It is {row['label']}.", row["label"]),
        {"prompt": "Which?\n{text}", "answer": "It is {label}."},
    ),
    "tagging": Case(
        lambda n: {"tokens": [*words(n).split(), "New", "York", "Rome"], "tags": ["O"] * 12 + ["B-x", "I-x", "B-y"]},
        lambda row: (f"Which?\n{' '.join(row['tokens'])}", "New York: x; Rome: y", row),
        {"prompt": "Which?\n{sentence}"},
    ),
    "translation": Case(
        lambda n: {"source": words(n), "target": words(n + 1), "language": "Spanish"},
        lambda row: (f"Translate to Spanish: {row['source']}", row["target"], row["target"]),
    ),
    "qa": Case(
        lambda n: {"context": words(n), "question": f"{words(n + 1)}?", "answers": words(n).split()[:2]},
        lambda row: (f"{row['context']}\n{row['question']}", row["answers"][0], row["answers"]),
    ),
    "generation": Case(
        lambda n: {"prompt": "Write.", "completion": words(n)},
        lambda row: ("Write.", row["completion"], row["completion"]),
    ),
    "chat": Case(lambda n: {"messages": chat(words(n), words(n + 1))}, lambda row: (*contents(row), contents(row)[1])),
    "language-modeling": Case(lambda n: {"text": words(n)}, lambda row: ("", row["text"], "")),
}


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]


def contents(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"]]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mine(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A source with these rows."""
    write_jsonl(Path("mine.jsonl"), rows)
    return {"path": "mine.jsonl"}


def prepare(task: str, source: dict[str, Any], digest: str = "", **other: Any) -> dict[str, list[dict[str, Any]]]:
    scenario = Scenario.model_validate({"task": task, "source": source, **other})
    digests = {name: digest or sha256(Path(name)) for name in scenario.source.paths}
    recipe = json.dumps({"scenario": scenario.model_dump(), "source_digests": digests}, sort_keys=True)
    files = ["documentation.jsonl"] if scenario.source.builtin else list(digests)
    command = ["x", "--recipe", recipe, "--output-directory", "out", *(["--source", *files] if files else [])]
    with mock.patch.object(sys, "argv", command):
        prepare_data.main()
    return {split: read_jsonl(Path(f"out/{split}.jsonl")) for split in SPLITS}


def read_card() -> dict[str, Any]:
    return read_json(Path("out/card.json"))


@pytest.mark.parametrize("task", CASES)
def test_a_users_file_of_each_task_becomes_rows_and_a_card(task: str) -> None:
    make, written, templates = CASES[task]
    originals = [make(10 * n) for n in range(60)]
    rows = prepare(task, mine([*originals, originals[0] | {"group": "a copy"}]), **templates)
    card = read_card()
    assert (card["task"], card["source"], card["read"]) == (task, "mine.jsonl", 61)
    assert card["dropped"] == {"duplicate of a kept row": 1}
    assert card["kept"] == {split: len(found) for split, found in rows.items()}
    assert sum(card["kept"].values()) == 60
    assert card["sha256"] == {split: sha256(Path(f"out/{split}.jsonl")) for split in SPLITS}
    assert card["gate"] == {"verdict": "passed", "over_budget": [], "not_judged": []}
    assert read_json(Path("out/manifest.json"))["inputs"] == {"mine.jsonl": sha256(Path("mine.jsonl"))}
    for row in (row for found in rows.values() for row in found):
        asked, answer, reference = written(originals[(int(row.pop("id").split(":")[1]) - 1) % 60])
        assert row == ({"messages": chat(asked, answer), "reference": reference} if asked else {"text": answer})


def test_files_are_mixed_by_weight_without_repeating_a_row() -> None:
    Path("other").mkdir()
    write_jsonl(Path("a.jsonl"), [{"messages": chat(words(n), "Yes.")} for n in range(60)])
    write_jsonl(Path("other/a.jsonl"), [{"instruction": words(n), "output": "No."} for n in range(1000, 1030)])

    def mixed(*weights: float | None) -> tuple[collections.Counter[str], dict[str, str]]:
        parts = zip(("./a.jsonl", "other/a.jsonl"), weights, strict=True)
        rows = prepare("chat", {"path": [{"path": path, "weight": weight} for path, weight in parts]})
        ids = [row["id"] for found in rows.values() for row in found]
        assert len(set(ids)) == len(ids)
        return collections.Counter(name.rpartition(":")[0] for name in ids), read_card()

    assert mixed(None, None)[0] == {"1/a.jsonl": 60, "2/a.jsonl": 30}
    count, card = mixed(0.1, 0.2)
    assert count == {"1/a.jsonl": 15, "2/a.jsonl": 30}
    assert (card["read"], card["dropped"]) == (90, {"over the share of its file": 45})
    assert mixed(1, 2) == (count, card)
    assert mixed(9, 1)[0] == {"1/a.jsonl": 60, "2/a.jsonl": 7}


def test_weights_hold_for_what_duplicates_and_limits_leave() -> None:
    write_jsonl(Path("a.jsonl"), [{"messages": chat(words(n % 40), "Yes.")} for n in range(120)])
    write_jsonl(Path("b.jsonl"), [{"messages": chat(words(n), "No.")} for n in range(1000, 1100)])
    path = [{"path": name, "weight": 1} for name in ("a.jsonl", "b.jsonl")]
    other = {"gate": "warn", "split": {"validation": 0.25, "test": 0.25}}
    prepare("chat", {"path": path}, **other)
    counted = read_card()["rows_per_file"]
    assert {name: sum(found.values()) for name, found in counted.items()} == {"a.jsonl": 40, "b.jsonl": 40}
    rows = {"train": 12, "validation": 4, "test": 4}
    prepare("chat", {"path": path}, rows=rows, **other)
    card = read_card()
    assert (card["kept"], sum(card["dropped"].values())) == (rows, 200)


def test_all_that_the_last_turn_says_is_scored() -> None:
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    last = {"role": "assistant", "content": None, "reasoning_content": "Far.", "tool_calls": [{"function": call}]}
    tools = [{"function": {"name": "weather"}}]
    asked = [{"messages": [chat(words(n), "x")[0], last], "tools": tools} for n in range(40)]
    for row in prepare("chat", mine(asked))["test"]:
        assert row["reference"] == 'Far.\n{"name": "weather", "arguments": {"city": "Oslo"}}'
        assert row["tools"] == tools


def test_the_keys_of_tools_and_calls_keep_their_order_and_all_others_are_sorted() -> None:
    function = {"name": "weather", "description": "Now", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    calls = [{"function": {"name": "weather", "arguments": {"town": "Oslo", "at": "noon"}}}]
    asked = [{"messages": [chat(words(n, 40), "x")[0], {"role": "assistant", "tool_calls": calls}]} for n in range(40)]
    Path("mine.jsonl").write_text("".join(json.dumps(row | {"tools": tools}) + "\n" for row in asked))
    for row in prepare("chat", {"path": "mine.jsonl"})["train"]:
        assert json.dumps(row["tools"]) == json.dumps(tools)
        assert list(row["messages"][1]["tool_calls"][0]["function"]["arguments"]) == ["town", "at"]
        assert list(row) == sorted(row)
        assert [list(message) for message in row["messages"]] == [sorted(message) for message in row["messages"]]


@pytest.mark.parametrize("task", CASES)
def test_rows_without_tools_are_written_with_all_keys_sorted(task: str) -> None:
    make, _, templates = CASES[task]
    prepare(task, mine([make(10 * n) for n in range(60)]), **templates)
    written = Path("out/train.jsonl").read_bytes()
    write_jsonl(Path("again.jsonl"), read_jsonl(Path("out/train.jsonl")))
    assert Path("again.jsonl").read_bytes() == written


def test_the_card_of_a_classification_has_its_labels() -> None:
    rows = [{"text": words(n), "label": "aab"[n % 3]} for n in range(60)]
    prepare("classification", mine(rows), answer="It is {label}.")
    card = read_card()
    assert card["labels"] == ["a", "b"]
    assert card["answers"] == ["It is a.", "It is b."]
    assert sum(rows for counts in card["rows_per_label"].values() for rows in counts.values()) == 60
    test = card["rows_per_label"]["test"]
    assert card["majority_share_of_test"] == max(test.values()) / sum(test.values())
    assert card["near_duplicates"].endswith("(MinHash of word trigrams, threshold 0.6)")
    assert card["characters"]["answer"] == {"shortest": 8, "median": 8, "longest": 8}


def test_the_card_of_a_tagging_has_its_entities() -> None:
    prepare("tagging", mine([CASES["tagging"].row(n) for n in range(60)]))
    card = read_card()
    assert card["entities_per_type"] == {split: {"x": rows, "y": rows} for split, rows in card["kept"].items()}
    assert (card["labels"], card["answers"], card["rows_per_label"]) == ([], [], {})


def test_the_same_rows_in_every_kind_of_file_give_the_same_bytes() -> None:
    rows = [{"nr": f"r{n}", "text": words(n), "label": "ab"[n % 2]} for n in range(40)]
    write_jsonl(Path("a.jsonl"), rows)
    Path("a.json").write_text(json.dumps(rows))
    Path("a.csv").write_text("nr,text,label\n" + "".join(",".join(row.values()) + "\n" for row in rows))
    datasets.Dataset.from_list(rows).to_parquet("a.parquet")
    found = set()
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        prepare("classification", {"path": name, "columns": {"id": "nr"}})
        found.add(tuple(read_card()["sha256"].values()))
    assert len(found) == 1


HUB = {"hub": "owner/name", "revision": "0" * 40, "splits": {"train": "train", "test": "validation"}}


def hub_of(rows: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split, **__: datasets.Dataset.from_list(rows[split]))


def test_a_hub_dataset_needs_no_file_and_may_hold_a_few_malformed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [CASES["chat"].row(10 * n) for n in range(150)]
    rows[7] = {"messages": rows[7]["messages"][:-1]}
    hub_of({"train": rows[:120], "validation": rows[120:]}, monkeypatch)
    made = prepare("chat", HUB)
    card = read_card()
    assert card["source"] == "owner/name@000000000000"
    assert (card["read"], card["dropped"]) == (150, {"malformed": 1})
    assert len(made["test"]) == 30
    assert len(made["train"]) + len(made["validation"]) == 119
    assert read_json(Path("out/manifest.json"))["inputs"] == {}


def test_a_hub_dataset_of_malformed_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_of({"train": [{"messages": []}] * 20, "validation": []}, monkeypatch)
    with pytest.raises(UserError, match=r"20 faults in the data; .*\n  owner/name train, row 1: messages"):
        prepare("chat", HUB)


def test_a_builtin_corpus_is_read_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def examples(corpus: Path, max_characters: int) -> list[Example]:
        assert corpus == Path("documentation.jsonl")
        texts = [words(n)[:max_characters] for n in range(60)]
        return [Example(str(n), {"messages": chat(text, "Yes.")}, str(n)) for n, text in enumerate(texts)]

    monkeypatch.setitem(sys.modules, "snaketune.corpora.dialogues", types.SimpleNamespace(examples=examples))
    proven: list[Path] = []
    monkeypatch.setattr(prepare_data.manifest, "prove", proven.append)
    write_jsonl(Path("documentation.jsonl"), [])
    rows = prepare("chat", {"builtin": "dialogues", "options": {"max_characters": 30}})
    assert sum(map(len, rows.values())) == 60
    assert proven == [Path("manifest.json")]
    assert read_card()["gate"]["not_judged"] == ["duplicates", "leaks"]


def test_over_a_budget_nothing_is_written_unless_the_gate_only_warns(capsys: pytest.CaptureFixture[str]) -> None:
    source = mine([{"text": words(n % 30)} for n in range(60)])
    with pytest.raises(UserError, match="duplicates: 30 of 60"):
        prepare("language-modeling", source)
    assert not Path("out").exists()
    prepare("language-modeling", source, gate="warn")
    [sentence] = read_card()["gate"]["over_budget"]
    assert capsys.readouterr().err == f"over budget: {sentence}\n"


def test_a_file_that_changed_after_the_job_was_planned_is_refused() -> None:
    with pytest.raises(UserError, match="has changed since the job was planned"):
        prepare("language-modeling", mine([{}]), digest="0" * 64)
