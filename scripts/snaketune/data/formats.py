"""The shapes that the rows of each task come in, and the fields that the task makes of them."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from snaketune.data.coerce import Fault, Names, Values, label, strings, text
from snaketune.data.conversations import alpaca, chat_of, generation_of, pair, single_turn, turns
from snaketune.data.raw_rows import found


class Shape(NamedTuple):
    """Keys that a row must have, with the native names of each, and what they become."""

    keys: dict[str, tuple[str, ...]]
    build: Callable[[Values, Names], dict[str, Any]]
    optional: tuple[str, ...] = ()


def _tagged(values: Values, names: Names) -> dict[str, Any]:
    tokens, tags = strings(values["tokens"], names["tokens"]), strings(values["tags"], names["tags"])
    if len(tokens) != len(tags):
        raise Fault(names["tags"], f"expected one tag for each of {len(tokens)} tokens, found {len(tags)}")
    for number, (before, tag) in enumerate(zip(["O", *tags], tags, strict=False)):
        name = f"{names['tags']}[{number}]"
        if not re.fullmatch(r"O|[BI]-[^\s:;]+", tag):
            raise Fault(name, f"expected O, B-… or I-… (BIO), found {tag!r}")
        if tag.startswith("I-") and before[2:] != tag[2:]:
            raise Fault(name, f"expected B-{tag[2:]} where an entity begins, found {tag!r} after {before!r}")
    return {"tokens": tokens, "tags": tags}


def _answered(values: Values, names: Names) -> dict[str, Any]:
    context, question = (text(values[key], names[key]) for key in ("context", "question"))
    answers, name = values["answers"], names["answers"]
    if isinstance(answers, dict):
        if "text" not in answers:
            raise Fault(name, f"expected the key text, found {found(answers)}")
        answers, name = answers["text"], f"{name}.text"
    if isinstance(answers, str) or answers is None:
        answers = [answers]
    if not isinstance(answers, list):
        raise Fault(name, f"expected a string or a list of strings, found {found(answers)}")
    spans = [span for number, one in enumerate(answers) if (span := text(one, f"{name}[{number}]"))]
    if outside := next((span for span in spans if span not in context), None):
        raise Fault(name, f"expected a part of the context, found {found(outside)}")
    return {"context": context, "question": question, "answers": list(dict.fromkeys(spans))}


def _texts(values: Values, names: Names) -> dict[str, Any]:
    return {key: text(value, names[key]) for key, value in values.items()}


def _labelled(values: Values, names: Names) -> dict[str, Any]:
    return {"text": text(values["text"], names["text"]), "label": label(values["label"], names["label"])}


def _native(*keys: str) -> dict[str, tuple[str, ...]]:
    return {key: (key,) for key in keys}


# The first shape whose keys are all in the first row is that of all rows.
SHAPES: dict[str, dict[str, Shape]] = {
    "classification": {"text + label": Shape(_native("text", "label"), _labelled)},
    "tagging": {"tokens + tags": Shape({"tokens": ("tokens",), "tags": ("tags", "ner_tags")}, _tagged)},
    "translation": {"source + target": Shape(_native("source", "target"), _texts, ("language",))},
    "qa": {"context + question + answers": Shape(_native("context", "question", "answers"), _answered)},
    "chat": {
        "messages": Shape(_native("messages"), lambda v, n: {"messages": turns(v["messages"], n["messages"])}),
        "conversations (ShareGPT)": Shape(
            _native("conversations"), lambda v, n: {"messages": turns(v["conversations"], n["conversations"])}
        ),
        "prompt + completion": Shape(_native("prompt", "completion"), lambda v, n: chat_of(*pair(v, n), n)),
        "instruction + output (Alpaca)": Shape(
            _native("instruction", "output"), lambda v, n: chat_of(*alpaca(v, n), n), ("input",)
        ),
    },
    "generation": {
        "prompt + completion": Shape(_native("prompt", "completion"), lambda v, n: generation_of(*pair(v, n), n)),
        "instruction + output (Alpaca)": Shape(
            _native("instruction", "output"), lambda v, n: generation_of(*alpaca(v, n), n), ("input",)
        ),
        "messages": Shape(
            _native("messages"), lambda v, n: single_turn(turns(v["messages"], n["messages"]), n["messages"])
        ),
        "conversations (ShareGPT)": Shape(
            _native("conversations"),
            lambda v, n: single_turn(turns(v["conversations"], n["conversations"]), n["conversations"]),
        ),
    },
    "language-modeling": {"text": Shape(_native("text"), _texts)},
}
