"""Examples of every task are split by their groups and written with a card that says what was kept."""

import collections
import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prepare_data
from snaketune.config.scenario import Scenario
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, sha256, write_jsonl
from snaketune.data.examples import Example
from snaketune.data.tasks import Tagging

NAMES = ("train", "validation", "test")


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


@pytest.mark.parametrize("given", [["train"], ["train", "test"], ["train", "validation"], list(NAMES)])
def test_splits_that_the_data_lack_are_taken_from_training(given: list[str]) -> None:
    examples = [example(n, split) for split in given for n in range(100)]
    prepare_data.assign_splits(examples, {"validation": 0.1, "test": 0.2})
    shares = {"validation": 10, "test": 20}
    taken = {split: rows for split, rows in shares.items() if split not in given}
    expected = dict.fromkeys(given, 100) | taken | {"train": 100 - sum(taken.values())}
    assert collections.Counter(one.split for one in examples) == expected
    assert {one.given_split for one in examples if one.split in taken} <= {"train"}


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "classification": (
        lambda n: {"text": words(n), "label": "ab"[n // 10 % 2]},
        {"prompt": "Which?\n{text}", "answer": "It is {label}."},
    ),
    "tagging": (
        lambda n: {"tokens": [*words(n).split(), "New", "York", "Rome"], "tags": ["O"] * 12 + ["B-x", "I-x", "B-y"]},
        {},
    ),
    "translation": (lambda n: {"source": words(n), "target": words(n + 1), "language": "Spanish"}, {}),
    "qa": (lambda n: {"context": words(n), "question": f"{words(n + 1)}?", "answers": words(n).split()[:2]}, {}),
    "chat": (
        lambda n: {"messages": [{"role": r, "content": words(n + i)} for i, r in enumerate(("user", "assistant") * 2)]},
        {},
    ),
    "language-modeling": (lambda n: {"text": words(n)}, {}),
    "generation": (lambda n: {"prompt": "Write.", "completion": words(n)}, {}),
}
USERS = {
    "classification": lambda row: f"Which?\n{row['text']}",
    "tagging": lambda row: f"Name the entities in this sentence and their types.\n{' '.join(row['tokens'])}",
    "translation": lambda row: f"Translate to Spanish: {row['source']}",
    "qa": lambda row: f"{row['context']}\n{row['question']}",
    "generation": lambda row: "Write.",
}
ANSWERS = {
    "classification": lambda row: (f"It is {row['label']}.", row["label"]),
    "tagging": lambda row: ("New York: x; Rome: y", row),
    "translation": lambda row: (row["target"], row["target"]),
    "qa": lambda row: (row["answers"][0], row["answers"]),
    "generation": lambda row: (row["completion"], row["completion"]),
}


def prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, source: dict[str, Any], *sources: str, **other: Any
) -> dict[str, list[dict[str, Any]]]:
    content = {"task": task, "source": source, **other}
    recipe = {
        "scenario": Scenario.model_validate(content).model_dump(),
        "source_digests": {name: sha256(Path(name)) for name in sources if source.get("path")},
    }
    out = ["--output-directory", f"{tmp_path}/out"]
    given = ["--source", *sources] if sources else []
    monkeypatch.setattr(sys, "argv", ["x", "--recipe", json.dumps(recipe, sort_keys=True), *given, *out])
    prepare_data.main()
    return {split: read_jsonl(tmp_path / f"out/{split}.jsonl") for split in NAMES}


@pytest.mark.parametrize("task", TASKS)
def test_a_users_file_of_each_task_becomes_rows_and_a_card(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, templates = TASKS[task]
    originals = [make(10 * n) for n in range(60)]
    path = f"{tmp_path}/mine.jsonl"
    write_jsonl(Path(path), [*originals, originals[0] | {"group": "a copy"}])
    rows = prepare(tmp_path, monkeypatch, task, {"path": path}, path, **templates)
    card = read_json(tmp_path / "out/card.json")
    assert (card["task"], card["source"], card["read"]) == (task, path, 61)
    assert card["dropped"] == {"duplicate of a kept row": 1}
    assert card["kept"] == {split: len(found) for split, found in rows.items()}
    assert sum(card["kept"].values()) == 60
    assert card["sha256"] == {split: sha256(tmp_path / f"out/{split}.jsonl") for split in NAMES}
    assert card["gate"] == {"verdict": "passed", "over_budget": [], "not_judged": []}
    assert read_json(tmp_path / "out/manifest.json")["inputs"] == {path: sha256(Path(path))}
    for row in (row for found in rows.values() for row in found):
        original = originals[(int(row.pop("id").split(":")[1]) - 1) % 60]
        assert row == expected_row(task, original)


def expected_row(task: str, original: dict[str, Any]) -> dict[str, Any]:
    if task == "language-modeling":
        return {"text": original["text"]}
    if task == "chat":
        return {"messages": original["messages"], "reference": original["messages"][-1]["content"]}
    answer, reference = ANSWERS[task](original)
    messages = [{"role": "user", "content": USERS[task](original)}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "reference": reference}


def test_the_card_of_a_classification_has_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/mine.jsonl"
    write_jsonl(Path(path), [{"text": words(n), "label": "aab"[n % 3]} for n in range(60)])
    prepare(tmp_path, monkeypatch, "classification", {"path": path}, path, answer="It is {label}.")
    card = read_json(tmp_path / "out/card.json")
    assert card["labels"] == ["a", "b"]
    assert card["answers"] == ["It is a.", "It is b."]
    assert sum(rows for counts in card["rows_per_label"].values() for rows in counts.values()) == 60
    test = card["rows_per_label"]["test"]
    assert (
        card["near_duplicates"]
        == "near-duplicates of a kept text were dropped (MinHash of word trigrams, threshold 0.6)"
    )
    assert card["majority_share_of_test"] == max(test.values()) / sum(test.values())
    assert card["characters"]["answer"] == {"shortest": 8, "median": 8, "longest": 8}


def test_the_card_of_a_tagging_has_its_entities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/mine.jsonl"
    write_jsonl(Path(path), [TASKS["tagging"][0](n) for n in range(60)])
    prepare(tmp_path, monkeypatch, "tagging", {"path": path}, path)
    card = read_json(tmp_path / "out/card.json")
    assert card["entities_per_type"] == {split: {"x": rows, "y": rows} for split, rows in card["kept"].items()}
    assert (card["labels"], card["answers"], card["rows_per_label"]) == ([], [], {})


def test_the_same_rows_in_every_kind_of_file_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"nr": f"r{n}", "text": words(n), "label": "ab"[n % 2]} for n in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("nr,text,label\n" + "".join(",".join(row.values()) + "\n" for row in rows))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    found = set()
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        source = {"path": f"{tmp_path}/{name}", "columns": {"id": "nr"}}
        prepare(tmp_path, monkeypatch, "classification", source, source["path"])
        found.add(tuple(sha256(tmp_path / f"out/{split}.jsonl") for split in NAMES))
    assert len(found) == 1


HUB = {"hub": "owner/name", "revision": "0" * 40, "splits": {"train": "train", "test": "validation"}}


def hub_of(rows: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, split: str, **__: Any) -> datasets.Dataset:
        return datasets.Dataset.from_list(rows[split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_a_hub_dataset_needs_no_file_and_may_hold_a_few_malformed_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [TASKS["chat"][0](10 * n) for n in range(150)]
    rows[7] = {"messages": rows[7]["messages"][:-1]}
    hub_of({"train": rows[:120], "validation": rows[120:]}, monkeypatch)
    made = prepare(tmp_path, monkeypatch, "chat", HUB)
    card = read_json(tmp_path / "out/card.json")
    assert card["source"] == "owner/name@000000000000"
    assert (card["read"], card["dropped"]) == (150, {"malformed": 1})
    assert len(made["test"]) == 30
    assert len(made["train"]) + len(made["validation"]) == 119
    assert read_json(tmp_path / "out/manifest.json")["inputs"] == {}


def test_a_hub_dataset_of_malformed_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_of({"train": [{"messages": []}] * 20, "validation": []}, monkeypatch)
    with pytest.raises(
        UserError, match="20 faults in the data; nothing was written\n  owner/name train, row 1: messages"
    ):
        prepare(tmp_path, monkeypatch, "chat", HUB)


def test_a_builtin_corpus_is_read_with_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def examples(corpus: Path, max_characters: int) -> list[Example]:
        assert corpus == tmp_path / "documentation.jsonl"
        texts = [words(n)[:max_characters] for n in range(60)]
        return [Example(str(n), {"messages": chat(text)}, str(n)) for n, text in enumerate(texts)]

    def chat(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]

    module = types.ModuleType("dialogues")
    module.examples = examples  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "snaketune.corpora.dialogues", module)
    proven: list[Path] = []
    monkeypatch.setattr(prepare_data.manifest, "prove", proven.append)
    write_jsonl(tmp_path / "documentation.jsonl", [])
    source = {"builtin": "dialogues", "options": {"max_characters": 30}}
    rows = prepare(tmp_path, monkeypatch, "chat", source, f"{tmp_path}/documentation.jsonl")
    assert sum(map(len, rows.values())) == 60
    assert proven == [tmp_path / "manifest.json"]
    assert read_json(tmp_path / "out/card.json")["gate"]["not_judged"] == ["duplicates", "leaks"]


def test_over_a_budget_nothing_is_written_unless_the_gate_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{tmp_path}/mine.jsonl"
    write_jsonl(Path(path), [{"text": words(n % 30)} for n in range(60)])
    with pytest.raises(UserError, match="duplicates: 30 of 60"):
        prepare(tmp_path, monkeypatch, "language-modeling", {"path": path}, path)
    assert not (tmp_path / "out").exists()
    prepare(tmp_path, monkeypatch, "language-modeling", {"path": path}, path, gate="warn")
    [sentence] = read_json(tmp_path / "out/card.json")["gate"]["over_budget"]
    assert capsys.readouterr().err == f"over budget: {sentence}\n"


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        (["O", "O", "O"], []),
        (["B-x", "I-x", "O"], [("a b", "x")]),
        (["B-x", "B-x", "I-x"], [("a", "x"), ("b c", "x")]),
        (["O", "B-x", "B-y"], [("b", "x"), ("c", "y")]),
    ],
)
def test_entities_begin_with_b_and_go_on_with_i(tags: list[str], entities: list[tuple[str, str]]) -> None:
    assert Tagging().entities({"tokens": ["a", "b", "c"], "tags": tags}) == entities


def test_a_file_that_changed_after_the_job_was_planned_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/mine.jsonl"
    write_jsonl(Path(path), [{}])
    monkeypatch.setattr(sys.modules[__name__], "sha256", lambda path: "0" * 64)
    with pytest.raises(UserError, match="has changed since the job was planned"):
        prepare(tmp_path, monkeypatch, "language-modeling", {"path": path}, path)
