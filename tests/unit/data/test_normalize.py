"""Rows of every format become the examples of their task."""

from typing import Any

import pytest

from snaketune.config.scenario import Scenario
from snaketune.core.errors import UserError
from snaketune.data.examples import Example
from snaketune.data.normalize import Normalizer, reach
from snaketune.data.raw_rows import Faults, Row

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SYSTEM = {"role": "system", "content": "Be kind."}
PROMPTED = {"prompt": "Hi", "completion": "Hello"}


def normalizer(task: str, **source: Any) -> Normalizer:
    content = {"task": task, "source": {"path": "a.jsonl"} | source}
    if task == "translation":
        content["prompt"] = "Translate: {source}"
    return Normalizer(Scenario.model_validate(content).model_dump(), Faults())


def shaped(task: str, content: dict[str, Any], split: str | None = None, **source: Any) -> Example:
    made = normalizer(task, **source)
    example = made(Row("a.jsonl:1", "1", split, content))
    made.faults.stop()
    assert example is not None
    assert (example.id, example.where) == ("1", "a.jsonl:1")
    return example


def fields(task: str, content: dict[str, Any], **columns: str) -> dict[str, Any]:
    return shaped(task, content, columns=columns).fields


@pytest.mark.parametrize(
    "content",
    [
        {"messages": TURNS},
        {"messages": [turn | {"name": "x"} for turn in TURNS], "prompt": "Hi"},
        PROMPTED,
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"instruction": "Hi", "output": "Hello"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}]},
        {"conversations": TURNS},
    ],
)
def test_chats_of_every_format_are_one(content: dict[str, Any]) -> None:
    assert fields("chat", content) == {"messages": TURNS}
    assert fields("generation", content) == PROMPTED


def test_a_system_turn_may_come_first_and_turns_go_on() -> None:
    turns = [SYSTEM, *TURNS, *TURNS]
    assert fields("chat", {"messages": turns}) == {"messages": turns}
    sharegpt = [{"from": turn["role"], "value": turn["content"]} for turn in turns]
    assert fields("chat", {"conversations": sharegpt}) == {"messages": turns}
    assert fields("chat", {"prompt": turns[:-1], "completion": turns[-1:]}) == {"messages": turns}


def test_the_input_of_alpaca_follows_the_instruction() -> None:
    content = {"instruction": "Add.", "input": "1 + 1", "output": "2"}
    assert fields("generation", content) == {"prompt": "Add.\n1 + 1", "completion": "2"}


def test_text_and_label() -> None:
    assert fields("classification", {"text": " A ", "label": "x\n", "other": 1}) == {"text": "A", "label": "x"}
    assert fields("language-modeling", {"text": "A"}) == {"text": "A"}


@pytest.mark.parametrize(("label", "written"), [(1, "1"), (0, "0"), (-12, "-12")])
def test_a_whole_number_is_a_label_as_in_csv(label: int, written: str) -> None:
    assert fields("classification", {"text": "A", "label": label}) == {"text": "A", "label": written}


@pytest.mark.parametrize("label", [True, 1.0, [1]])
def test_other_values_are_no_labels(label: Any) -> None:
    with pytest.raises(UserError, match="label: expected a string or a whole number, found"):
        fields("classification", {"text": "A", "label": label})


def test_braces_around_language_ask_for_no_column() -> None:
    scenario = {"task": "translation", "source": {"path": "a.jsonl"}, "prompt": "{{language}}: {source}"}
    made = Normalizer(Scenario.model_validate(scenario).model_dump(), Faults())
    assert made(Row("a.jsonl:1", "1", None, {"source": "hand", "target": "mano"})) is not None
    assert made.faults.count == 0


@pytest.mark.parametrize("name", ["tags", "ner_tags"])
def test_tokens_and_tags_are_lists_or_words_in_a_string(name: str) -> None:
    expected = {"tokens": ["New", "York", "is", "Rome"], "tags": ["B-x", "I-x", "O", "B-x"]}
    assert fields("tagging", {"tokens": expected["tokens"], name: expected["tags"]}) == expected
    assert fields("tagging", {"tokens": "New York is Rome", name: "B-x I-x O B-x"}) == expected


def test_translations_are_reached_in_nested_objects() -> None:
    content = {"translation": {"en": "hand", "es": "mano"}}
    expected = {"source": "hand", "target": "mano"}
    assert fields("translation", content, source="translation.en", target="translation.es") == expected
    assert fields("translation", expected | {"language": "Spanish"}) == expected | {"language": "Spanish"}


@pytest.mark.parametrize("answers", ["north", ["north"], ["north ", "north"], {"text": ["north"], "answer_start": [4]}])
def test_answers_of_every_form(answers: Any) -> None:
    content = {"context": "The north.", "question": "Where?", "answers": answers}
    assert fields("qa", content) == {"context": "The north.", "question": "Where?", "answers": ["north"]}


def test_columns_choose_the_format_and_the_names() -> None:
    content = {"messages": TURNS, "q": "Hi?", "a": "Yes"}
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes"}]
    assert fields("chat", content, prompt="q", completion="a") == {"messages": turns}


def test_a_name_with_a_dot_comes_before_a_nested_one() -> None:
    assert reach({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert reach({"a": {"b": {"c": 3}}}, "a.b.c") == 3
    with pytest.raises(KeyError, match="b"):
        reach({"a": {"b": 2}}, "a.c")


@pytest.mark.parametrize(
    ("task", "content", "group"),
    [
        ("classification", {"text": "Same", "label": "x"}, "same"),
        ("tagging", {"tokens": ["A", "b"], "tags": ["O", "O"]}, "a b"),
        ("translation", {"source": "Hand", "target": "mano"}, "hand"),
        ("qa", {"context": "The north.", "question": "Where?", "answers": "north"}, "the north."),
        ("chat", {"messages": [SYSTEM, *TURNS]}, "hi\nhello"),
        ("generation", PROMPTED, "hello"),
        ("classification", {"text": "Same", "label": "x", "group": 7}, "7"),
        ("classification", {"text": "Same", "label": "x", "group": None}, "same"),
    ],
)
def test_rows_are_grouped_by_what_splits_must_not_share(task: str, content: dict[str, Any], group: str) -> None:
    assert shaped(task, content).group == group


def test_id_group_and_split_may_be_columns() -> None:
    content = {"text": "A", "label": "x", "nr": 7, "who": "me", "part": "test"}
    made = normalizer("classification", columns={"id": "nr", "group": "who", "split": "part"})
    example = made(Row("a.jsonl:1", "1", None, content))
    assert example is not None
    assert (example.id, example.group, example.split) == ("7", "me", "test")


def test_a_split_of_its_own_file_outweighs_a_column() -> None:
    content = {"text": "A", "label": "x", "split": "dev"}
    files = {"train": "a.jsonl", "test": "b.jsonl"}
    assert shaped("classification", content, "test", path=files).split == "test"


def test_a_faulty_row_goes_to_the_faults_and_the_others_on() -> None:
    made = normalizer("classification")
    rows = [{"text": "a", "label": "x"}, {"text": "a"}, {"text": "b", "label": "x"}]
    examples = [made(Row(f"a.jsonl:{n}", str(n), None, row)) for n, row in enumerate(rows, 1)]
    assert [example and example.fields["text"] for example in examples] == ["a", None, "b"]
    assert made.faults.count == 1
    assert made.faults.shown[0].startswith("a.jsonl:2: label: expected a value")


def test_a_nul_character_is_refused_where_the_file_format_lets_it_pass() -> None:
    with pytest.raises(UserError, match=r"a\.jsonl:1: text: a NUL character"):
        shaped("classification", {"text": "a\0b", "label": "x"})
    with pytest.raises(UserError, match=r"tokens\[1\]: expected a word"):
        shaped("tagging", {"tokens": ["a", "b\0"], "tags": ["O", "O"]})
    with pytest.raises(UserError, match=r"tokens: a NUL character"):
        shaped("tagging", {"tokens": "a b\0", "tags": "O O"})
    with pytest.raises(UserError, match=r"messages\[1\]\.content: a NUL character"):
        shaped("chat", {"messages": [TURNS[0], {"role": "assistant", "content": "Hel\0lo"}]})
