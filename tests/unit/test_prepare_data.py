"""Examples are labelled, split and freed of duplicates so that no test row leaks."""

import collections
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prepare_data
from snaketune.config import SCHEMAS
from snaketune.errors import UserError
from snaketune.files import read_json, read_jsonl, sha256, write_jsonl
from snaketune.sources import Example, read_examples, without_names

NEAR = {"threshold": 0.6, "permutations": 64}


def recipe(source: dict[str, Any], **other: Any) -> dict[str, Any]:
    content = {
        "description": "for a test",
        "task": "classification",
        "licence": "none",
        "source": source,
        "prompt": "Which?\n{text}",
        "answer": "It is {label}.",
    }
    return SCHEMAS["scenario"].model_validate(content | other).model_dump()


def example(number: int, split: str, text: str | None = None, label: str = "a") -> Example:
    return {
        "id": str(number),
        "text": text or words(number, 12),
        "label": label,
        "group": str(number),
        "split": split,
    }


def words(seed: int, count: int) -> str:
    """A text that shares no three words in a row with that of another seed."""
    return " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(0, 10**6, count))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NumPy's numpy.array and NUMPY", "'s .array and"),
        ("numpyro mynumpy numpy2 numpy_like", "numpyro mynumpy numpy2 numpy_like"),
        ("scikit-learn, scikit", ", scikit"),
        ("_inductor inductor", "inductor"),
        ("two\n  lines", "two lines"),
    ],
)
def test_names_are_removed_in_any_case_and_not_inside_words(text: str, expected: str) -> None:
    assert without_names(text, {"numpy", "scikit-learn", "_inductor"}) == expected


def documentation(module: str, text: str, **other: str) -> dict[str, str]:
    row = {"library": "sympy", "module": module, "name": "f", "kind": "function", "group": module, "split": "train"}
    return row | {"text": text} | other


def read_documentation(tmp_path: Path, rows: list[dict[str, str]], **source: Any) -> list[Example]:
    write_jsonl(tmp_path / "documentation.jsonl", rows)
    areas = {"physics": ["sympy.physics"], "geometry": ["sympy.physics.vector", "sympy.geometry"]}
    scenario = recipe({"builtin": "documentation-areas", "areas": areas, "min_characters": 1, **source})
    return read_examples(scenario["source"], tmp_path / "documentation.jsonl")


def test_a_docstring_has_the_area_of_the_longest_prefix(tmp_path: Path) -> None:
    modules = ["sympy.physics", "sympy.physics.units.si", "sympy.physics.vector.frame", "sympy.physics.vectors"]
    found = read_documentation(tmp_path, [documentation(module, "Some text.") for module in modules])
    assert [one["label"] for one in found] == ["physics", "physics", "geometry", "physics"]


def test_docstrings_of_no_area_or_of_a_whole_module_are_left_out(tmp_path: Path) -> None:
    rows = [
        documentation("sympy.core", "Some text."),
        documentation("sympy.geometry", "Some text.", kind="module"),
        documentation("sympy.geometrys", "Some text."),
    ]
    assert read_documentation(tmp_path, rows) == []


def test_a_docstring_tells_nothing_by_its_library_module_or_aliases(tmp_path: Path) -> None:
    rows = [documentation("sympy.physics.units", "In SymPy's physics, Units of sp are united.")]
    [found] = read_documentation(tmp_path, rows, aliases=["sp"])
    assert found["text"] == "In 's , of are united."


def test_docstrings_are_cut_between_words_and_short_ones_left_out(tmp_path: Path) -> None:
    rows = [documentation("sympy.geometry", text) for text in ("one two three", "one", "z" * 30)]
    found = read_documentation(tmp_path, rows, max_characters=10, min_characters=5)
    assert [one["text"] for one in found] == ["one two", "z" * 10]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "b"}, r"row 2: expected a non-empty string in 'label', found nothing; the row has the keys text"),
        ({"text": " ", "label": "x"}, r"row 2: expected a non-empty string in 'text', found ' '"),
        ({"text": "b", "label": 3}, r"row 2: expected a non-empty string in 'label', found 3"),
        ({}, r"row 2: expected a non-empty string in 'text', found nothing; the row has the keys none"),
    ],
)
def test_a_bad_row_is_named_with_its_key(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"text": "a", "label": "x"}, row])
    with pytest.raises(UserError, match=re.escape(str(path)) + f", {message}"):
        read_examples(recipe({"path": "rows.jsonl"})["source"], path)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"body": " A ", "kind": "x", "who": 7}])
    source = recipe({"path": "rows.jsonl", "columns": {"text": "body", "label": "kind", "group": "who"}})["source"]
    assert read_examples(source, path) == [{"id": "rows.jsonl:1", "text": "A", "label": "x", "group": "7"}]


def test_rows_without_a_group_are_grouped_by_their_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"text": text, "label": "x"} for text in ("Same", "same", "other")])
    assert [one["group"] for one in read_examples(recipe({"path": "x"})["source"], path)] == ["same", "same", "other"]


@given(st.lists(st.text(max_size=2), min_size=1), st.floats(0, 0.5), st.floats(0, 0.49))
def test_a_group_is_never_divided_between_splits(groups: list[str], validation: float, test: float) -> None:
    examples = [{"group": group} for group in groups]
    prepare_data.assign_splits(examples, {"validation": validation, "test": test})
    splits = collections.defaultdict(set)
    for one in examples:
        splits[one["group"]].add(one["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_splits_have_their_shares_of_the_groups_whatever_the_order_of_rows() -> None:
    examples = [{"group": str(n // 2)} for n in range(200)]
    backwards = [dict(one) for one in examples[::-1]]
    for rows in (examples, backwards):
        prepare_data.assign_splits(rows, {"validation": 0.1, "test": 0.2})
    count = collections.Counter(one["split"] for one in examples)
    assert count == pytest.approx({"train": 140, "validation": 20, "test": 40}, abs=2)
    assert backwards[::-1] == examples


def test_a_split_that_the_source_fixes_stays() -> None:
    examples = [example(n, "validation") for n in range(10)]
    prepare_data.assign_splits(examples, {"validation": 0.1, "test": 0.2})
    assert {one["split"] for one in examples} == {"validation"}


def trigrams(text: str) -> set[tuple[str, ...]]:
    found = text.split()
    return {tuple(found[i : i + 3]) for i in range(len(found) - 2)}


@pytest.mark.parametrize("length", [20, 35])
def test_a_paraphrase_by_one_word_never_crosses_splits(length: int) -> None:
    examples = []
    for number in range(100):
        text = words(number, length).split()
        paraphrase = " ".join([*text[:9], "another", *text[10:]])
        splits = ("train", "test") if number % 2 else ("test", "train")
        examples.append(example(number, splits[0], " ".join(text)))
        examples.append(example(number + 1000, splits[1], paraphrase, label="b"))
    kept, dropped = prepare_data.select(examples, None, NEAR)
    sides = {int(one["id"]): trigrams(one["text"]) for one in kept}
    crossing = [
        number
        for number in range(100)
        if number in sides
        and number + 1000 in sides
        and len(sides[number] & sides[number + 1000]) >= NEAR["threshold"] * len(sides[number] | sides[number + 1000])
    ]
    assert crossing == [], f"{len(crossing)} of 100 pairs are in training and in test"
    assert dropped == {"near-duplicate of a kept row": 100}
    assert {one["split"] for one in kept} == {"test"}


def test_texts_that_differ_are_all_kept() -> None:
    examples = [example(n, split) for n, split in enumerate(["train", "validation", "test"] * 30)]
    kept, dropped = prepare_data.select(examples, None, NEAR)
    assert len(kept) == 90
    assert not dropped


def test_each_label_keeps_at_most_its_rows_in_each_split() -> None:
    examples = [example(n, split, label="ab"[n % 2]) for n, split in enumerate(["train", "validation", "test"] * 20)]
    limits = {"train": 4, "validation": 3, "test": 2}
    kept, dropped = prepare_data.select(examples, limits, NEAR)
    assert collections.Counter((one["label"], one["split"]) for one in kept) == {
        (label, split): rows for label in "ab" for split, rows in limits.items()
    }
    assert dropped == {"over the number of rows per label": 60 - 18}


SPLITS = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2


def test_enough_rows_of_two_labels_pass() -> None:
    kept = [example(n, split, label="ab"[n % 2]) for n, split in enumerate(SPLITS)]
    prepare_data.check(kept, recipe({"path": "mine.jsonl"}))


def test_only_one_label_is_refused() -> None:
    kept = [example(n, split) for n, split in enumerate(SPLITS)]
    with pytest.raises(UserError, match=r"mine\.jsonl: only one label \('a'\)"):
        prepare_data.check(kept, recipe({"path": "mine.jsonl"}))


@pytest.mark.parametrize(("split", "least"), [("train", 8), ("validation", 2), ("test", 2)])
def test_an_empty_split_is_refused(split: str, least: int) -> None:
    kept = [example(n, one, label="ab"[n % 2]) for n, one in enumerate(SPLITS) if one != split]
    with pytest.raises(UserError, match=rf"mine\.jsonl: 0 rows left for {split}, at least {least} are needed"):
        prepare_data.check(kept, recipe({"path": "mine.jsonl"}))


def test_a_label_that_was_never_trained_on_is_refused() -> None:
    kept = [example(n, split, label="ab"[n % 2]) for n, split in enumerate(SPLITS)] + [example(99, "test", label="c")]
    with pytest.raises(UserError, match="label 'c' is in test but in no training row"):
        prepare_data.check(kept, recipe({"path": "mine.jsonl"}))


def test_a_users_file_becomes_chats_and_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": words(n, 12), "label": "ab"[n % 2], "group": n // 2} for n in range(60)]
    rows.append(rows[0] | {"group": "a copy"})
    write_jsonl(tmp_path / "mine.jsonl", rows)
    source = f"{tmp_path}/mine.jsonl"
    scenario = json.dumps(
        {"scenario": recipe({"path": "mine.jsonl"}), "source_digests": {source: sha256(Path(source))}}
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "--recipe", scenario, "--source", source, "--output-directory", f"{tmp_path}/out"],
    )
    prepare_data.main()
    chats = {split: read_jsonl(tmp_path / f"out/{split}.jsonl") for split in ("train", "validation", "test")}
    card = read_json(tmp_path / "out/card.json")
    assert card["read"] == 61
    assert card["dropped"] == {"near-duplicate of a kept row": 1}
    assert card["kept"] == {split: len(found) for split, found in chats.items()}
    assert card["answers"] == ["It is a.", "It is b."]
    one = chats["train"][0]
    original = rows[int(one["id"].split(":")[1]) - 1]
    assert one["messages"] == [
        {"role": "user", "content": f"Which?\n{original['text']}"},
        {"role": "assistant", "content": f"It is {original['label']}."},
    ]


def test_a_file_that_changed_after_the_job_was_planned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("{}\n")
    with pytest.raises(UserError, match="was changed while its job waited"):
        prepare_data.check_source(path, {str(path): "0" * 64})
