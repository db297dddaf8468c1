"""Rows of every format become the examples of their task."""

import datetime
import json
from typing import Any

import pytest

from snaketune.config.scenario import Scenario
from snaketune.core.errors import UserError
from snaketune.data.examples import Example
from snaketune.data.normalize import Normalizer, value_at
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


TOOLS = [{"type": "function", "function": {"name": "weather"}}]
REASONED = [TURNS[0], TURNS[1] | {"reasoning_content": "Politeness."}]


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_a_chat_keeps_what_a_template_may_write(tools: Any, arguments: Any) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    answer = {"role": "tool", "name": "weather", "tool_call_id": "c1"}
    parts = [{"type": "text", "text": "4"}, {"type": "text", "text": " °C", "image_url": None}]
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": call["function"]}]}
    called["tool_calls"][0]["function"] = {"name": "weather", "arguments": arguments}
    turns = [SYSTEM, SYSTEM, TURNS[0], called, answer | {"content": parts}, REASONED[1] | {"tool_calls": []}]
    assert fields("chat", {"messages": turns, "tools": tools}) == {
        "messages": [
            *(SYSTEM, SYSTEM, TURNS[0]),
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1"} | call]},
            answer | {"content": "4 °C"},
            REASONED[1],
        ],
        "tools": TOOLS,
    }


@pytest.mark.parametrize("more", [{"messages": REASONED}, {"messages": TURNS, "tools": TOOLS}])
def test_a_task_of_texts_refuses_what_it_would_drop(more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"expected texts only, found (tools|reasoning_content); task: chat takes it"):
        fields("generation", more)


@pytest.mark.parametrize("arguments", ["[1]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', None])
def test_the_arguments_of_a_call_are_an_object(arguments: Any) -> None:
    call = {"function": {"name": "weather", "arguments": arguments}}
    with pytest.raises(UserError, match=r"a\.jsonl:1: messages\[1\]\.tool_calls\[0\]\.function\.arguments"):
        fields("chat", calling(call))
    with pytest.raises(UserError, match=r"a\.jsonl:1: messages\[1\]\.tool_calls\[0\]\.arguments"):
        fields("chat", calling(call["function"]))


def calling(*calls: Any) -> dict[str, Any]:
    return {"messages": [TURNS[0], TURNS[1] | {"tool_calls": list(calls)}]}


WHEN = datetime.datetime(2024, 7, 26)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (WHEN, r"datetime.* is no JSON; write it as a text"),
        (b"x", r"b'x' is no JSON"),
        ([("a", 1)], r"is no JSON"),
        (float("nan"), r"nan is no JSON"),
    ],
)
def test_a_value_that_json_cannot_write_is_refused_by_line(value: Any, says: str) -> None:
    arguments = {"at": [value]}
    call = {"function": {"name": "weather", "arguments": arguments}}
    with pytest.raises(
        UserError, match=rf"a\.jsonl:1: messages\[1\]\.tool_calls\[0\]\.function\.arguments\.at\[0\].*{says}"
    ):
        fields("chat", calling(call))
    with pytest.raises(UserError, match=rf"a\.jsonl:1: tools\[0\]\.parameters\.at\[0\].*{says}"):
        fields("chat", {"messages": TURNS, "tools": [{"name": "weather", "parameters": arguments}]})


def test_a_null_that_another_row_may_have_caused_is_refused_and_one_in_a_json_text_kept() -> None:
    arguments = {"city": "Oslo", "when": {"day": None}}
    call = {"function": {"name": "weather", "arguments": arguments}}
    with pytest.raises(
        UserError,
        match=r"tool_calls\[0\]\.function\.arguments\.when\.day: null; leave the key out, or give .* as a JSON text",
    ):
        fields("chat", calling(call))
    tool = {"name": "weather", "parameters": arguments}
    with pytest.raises(UserError, match=r"1: tools\[0\]\.parameters\.when\.day: null; .* give tools as a JSON text"):
        fields("chat", {"messages": TURNS, "tools": [tool]})
    call["function"]["arguments"] = json.dumps(arguments)
    kept = fields("chat", {**calling(call), "tools": json.dumps([tool])})
    assert kept["messages"][1]["tool_calls"][0]["function"]["arguments"] == arguments
    assert kept["tools"] == [{"type": "function", "function": tool}]


@pytest.mark.parametrize("bare", [{"name": "weather"}, {"type": "function", "name": "weather"}])
def test_bare_tools_are_written_as_templates_expect_them(bare: dict[str, str]) -> None:
    assert fields("chat", {"messages": TURNS, "tools": [bare]})["tools"] == TOOLS


@pytest.mark.parametrize("none", [None, "", [], "[]", "null", "{}"])
def test_an_empty_list_of_tools_or_calls_is_none_also_as_a_text(none: Any) -> None:
    messages = [TURNS[0], TURNS[1] | {"tool_calls": none}]
    assert fields("chat", {"messages": messages, "tools": none}) == {"messages": TURNS}


@pytest.mark.parametrize("part", [{"type": "text", "text": ""}, {"text": ""}])
def test_an_empty_part_is_called_empty(part: dict[str, str]) -> None:
    parts = [{"type": "text", "text": "Hi"}, part]
    with pytest.raises(UserError, match=r"messages\[0\]\.content\[1\]\.text: empty; leave the part out"):
        fields("chat", {"messages": [TURNS[0] | {"content": parts}, TURNS[1]]})


QUESTION = {"context": "The north.", "question": "Where?"}
TAGGED = {"tokens": ["New", "York", "is", "Rome"], "tags": ["B-x", "I-x", "O", "B-x"]}
TRANSLATED = {"source": "hand", "target": "mano"}


@pytest.mark.parametrize(
    ("task", "content", "columns", "expected"),
    [
        ("classification", {"text": " A ", "label": "x\n", "other": 1}, {}, {"text": "A", "label": "x"}),
        ("classification", {"text": "A", "label": 0}, {}, {"text": "A", "label": "0"}),
        ("classification", {"text": "A", "label": -12}, {}, {"text": "A", "label": "-12"}),
        ("language-modeling", {"text": "A"}, {}, {"text": "A"}),
        ("tagging", TAGGED, {}, TAGGED),
        ("tagging", {"tokens": "New York is Rome", "ner_tags": "B-x I-x O B-x"}, {}, TAGGED),
        ("translation", TRANSLATED | {"language": "Spanish"}, {}, TRANSLATED | {"language": "Spanish"}),
        ("translation", {"t": {"en": "hand", "es": "mano"}}, {"source": "t.en", "target": "t.es"}, TRANSLATED),
        ("qa", QUESTION | {"answers": "north"}, {}, QUESTION | {"answers": ["north"]}),
        ("qa", QUESTION | {"answers": ["north ", "north"]}, {}, QUESTION | {"answers": ["north"]}),
        ("qa", QUESTION | {"answers": {"text": ["north"], "n": [4]}}, {}, QUESTION | {"answers": ["north"]}),
        ("generation", {"instruction": "+", "input": "1", "output": "2"}, {}, {"prompt": "+\n1", "completion": "2"}),
        ("generation", {"messages": TURNS, "q": "Hi", "a": "Hello"}, {"prompt": "q", "completion": "a"}, PROMPTED),
    ],
)
def test_a_row_becomes_the_fields_of_its_task(
    task: str, content: dict[str, Any], columns: dict[str, str], expected: dict[str, Any]
) -> None:
    assert fields(task, content, **columns) == expected


def test_braces_around_language_ask_for_no_column() -> None:
    scenario = {"task": "translation", "source": {"path": "a.jsonl"}, "prompt": "{{language}}: {source}"}
    made = Normalizer(Scenario.model_validate(scenario).model_dump(), Faults())
    assert made(Row("a.jsonl:1", "1", None, {"source": "hand", "target": "mano"})) is not None
    assert made.faults.count == 0


def test_a_name_with_a_dot_comes_before_a_nested_one() -> None:
    assert value_at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1


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


def test_a_nul_character_is_refused_where_the_file_format_lets_it_pass() -> None:
    with pytest.raises(UserError, match=r"a\.jsonl:1: text: a NUL character"):
        shaped("classification", {"text": "a\0b", "label": "x"})
    with pytest.raises(UserError, match=r"tokens\[1\]: expected a word"):
        shaped("tagging", {"tokens": ["a", "b\0"], "tags": ["O", "O"]})
    with pytest.raises(UserError, match=r"tokens: a NUL character"):
        shaped("tagging", {"tokens": "a b\0", "tags": "O O"})
    with pytest.raises(UserError, match=r"messages\[1\]\.content: a NUL character"):
        shaped("chat", {"messages": [TURNS[0], {"role": "assistant", "content": "Hel\0lo"}]})
