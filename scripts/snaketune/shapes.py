"""The shapes that rows come in, detected from their keys, and the fields that a task makes of them."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from snaketune.layout import SPLITS
from snaketune.reading import Faults, Row, found
from snaketune.sources import Example, template_fields

ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES = ROLES | {"human": "user", "gpt": "assistant"}


class Fault(Exception):
    """What is wrong with a row."""

    def __init__(self, field: str, fault: str):
        super().__init__(f"{field}: {fault}")


Values = dict[str, Any]
Names = dict[str, str]


class Shape(NamedTuple):
    """Keys that a row must have, with the native names of each, and what they become."""

    keys: dict[str, tuple[str, ...]]
    build: Callable[[Values, Names], dict[str, Any]]
    optional: tuple[str, ...] = ()


def text(value: Any, name: str) -> str:
    """A string without white space around it; null becomes the empty string, which the gate counts."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Fault(name, f"expected a string, found {found(value)}")
    return value.strip()


def label(value: Any, name: str) -> str:
    """A text, or a whole number as it is written in CSV."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise Fault(name, f"expected a string or a whole number, found {found(value)}")
    return text(value, name)


def strings(value: Any, name: str) -> list[str]:
    """A list of words, or one string of them with spaces between."""
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list):
        raise Fault(name, f"expected a list of strings, found {found(value)}")
    for number, one in enumerate(value):
        if not isinstance(one, str) or not one.strip() or one != one.strip():
            raise Fault(f"{name}[{number}]", f"expected a word, found {found(one)}")
    return value


def turns(value: Any, name: str) -> list[dict[str, str]]:
    """Messages in order: perhaps system, then user and assistant by turns, the assistant last."""
    if not isinstance(value, list):
        raise Fault(name, f"expected a list of messages, found {found(value)}")
    if not value:
        raise Fault(name, "expected messages, found an empty list")
    messages = [_turn(turn, f"{name}[{number}]") for number, turn in enumerate(value)]
    expected = "user"
    for number, message in enumerate(messages):
        role = message["role"]
        if role == "system" and number == 0:
            continue
        if role != expected:
            after = f" after {messages[number - 1]['role']}" if number else ""
            only = "; system may only be first" if role == "system" else ""
            raise Fault(f"{name}[{number}].role", f"expected {expected}{after}, found {role}{only}")
        expected = "assistant" if role == "user" else "user"
    if messages[-1]["role"] != "assistant":
        raise Fault(name, f"expected the assistant's turn last, found {messages[-1]['role']}")
    return messages


def _turn(turn: Any, name: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise Fault(name, f"expected a message with role and content, found {found(turn)}")
    sharegpt = "from" in turn
    keys, roles = (("from", "value"), SHAREGPT_ROLES) if sharegpt else (("role", "content"), ROLES)
    for key in keys:
        if key not in turn:
            raise Fault(f"{name}.{key}", f"missing; the message has the keys {', '.join(turn) or 'none'}")
        if not isinstance(turn[key], str):
            raise Fault(f"{name}.{key}", f"expected a string, found {found(turn[key])}")
        if not turn[key].strip():
            raise Fault(f"{name}.{key}", f"expected a non-empty string, found {found(turn[key])}")
    role, content = (turn[key] for key in keys)
    if role not in roles:
        raise Fault(f"{name}.{keys[0]}", f"expected {', '.join(roles)}, found {role!r}")
    return {"role": roles[role], "content": content}


def _pair(values: Values, names: Names) -> tuple[Any, Any]:
    """Prompt and completion, as strings or as lists of messages; both of the same kind."""
    prompt, completion = values["prompt"], values["completion"]
    if isinstance(prompt, list) != isinstance(completion, list):
        raise Fault(names["completion"], f"expected what prompt is, {found(prompt)}; found {found(completion)}")
    if isinstance(prompt, list):
        return prompt, completion
    return text(prompt, names["prompt"]), text(completion, names["completion"])


def _alpaca(values: Values, names: Names) -> tuple[str, str]:
    parts = [text(values[key], names[key]) for key in ("instruction", "input") if key in values]
    return "\n".join(part for part in parts if part), text(values["output"], names["output"])


def _chat_of(prompt: Any, completion: Any, names: Names) -> dict[str, Any]:
    if isinstance(prompt, list):
        return {"messages": turns([*prompt, *completion], f"{names['prompt']} + {names['completion']}")}
    pairs = (("user", prompt), ("assistant", completion))
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def _single_turn(messages: list[dict[str, str]], name: str) -> dict[str, str]:
    if [message["role"] for message in messages] != ["user", "assistant"]:
        roles = ", ".join(message["role"] for message in messages)
        raise Fault(name, f"expected one user and one assistant turn, found {roles}; task: chat takes more"[:160])
    return {"prompt": messages[0]["content"], "completion": messages[1]["content"]}


def _generation_of(prompt: Any, completion: Any, names: Names) -> dict[str, str]:
    if isinstance(prompt, list):
        return _single_turn(_chat_of(prompt, completion, names)["messages"], names["prompt"])
    return {"prompt": prompt, "completion": completion}


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
        "prompt + completion": Shape(_native("prompt", "completion"), lambda v, n: _chat_of(*_pair(v, n), n)),
        "instruction + output (Alpaca)": Shape(
            _native("instruction", "output"), lambda v, n: _chat_of(*_alpaca(v, n), n), ("input",)
        ),
    },
    "generation": {
        "prompt + completion": Shape(_native("prompt", "completion"), lambda v, n: _generation_of(*_pair(v, n), n)),
        "instruction + output (Alpaca)": Shape(
            _native("instruction", "output"), lambda v, n: _generation_of(*_alpaca(v, n), n), ("input",)
        ),
        "messages": Shape(
            _native("messages"), lambda v, n: _single_turn(turns(v["messages"], n["messages"]), n["messages"])
        ),
        "conversations (ShareGPT)": Shape(
            _native("conversations"),
            lambda v, n: _single_turn(turns(v["conversations"], n["conversations"]), n["conversations"]),
        ),
    },
    "language-modeling": {"text": Shape(_native("text"), _texts)},
}


def reach(content: Any, path: str) -> Any:
    """The value at ``path``, where `a.b` is `b` of the object `a`.

    Raises:
        KeyError: it isn't there; the message says what is.
    """
    if isinstance(content, dict) and path in content:
        return content[path]
    first, _, rest = path.partition(".")
    if rest and isinstance(content, dict) and isinstance(content.get(first), dict):
        return reach(content[first], rest)
    raise KeyError(", ".join(map(str, content)) or "none")


def has(content: dict[str, Any], path: str) -> bool:
    try:
        reach(content, path)
    except KeyError:
        return False
    return True


class Shaper:
    """Makes examples of raw rows; what it can't read goes to ``faults``."""

    def __init__(self, scenario: dict[str, Any], faults: Faults):
        self.task, self.faults = scenario["task"], faults
        self.columns = {key: name for key, name in scenario["source"]["columns"].items() if name}
        self.one_file = isinstance(scenario["source"]["path"], str)
        self.needs_language = "language" in template_fields(scenario["prompt"])
        self.shape: tuple[str, str] | None = None
        self.ids: dict[str, str] = {}

    def __call__(self, row: Row) -> Example | None:
        """The example that a row holds, with id, group, where and, where the data give it, split."""
        try:
            fields = self._fields(row)
            example = {"id": row.key, "where": row.where, **fields}
            if "id" in self.columns:
                example["id"] = self._own_id(row)
            example["group"] = self._group(row, fields)
            if split := self._split(row):
                example["split"] = split
        except Fault as fault:
            self.faults.add(row.where, str(fault))
            return None
        return example

    def _names(self, shape: Shape, content: dict[str, Any]) -> Names:
        """The column of each key of a shape; of several native names the one that is there."""
        native = shape.keys | {key: (key,) for key in shape.optional}
        return {
            key: self.columns.get(key) or next((name for name in names if name in content), names[0])
            for key, names in native.items()
        }

    def _fits(self, shape: Shape, content: dict[str, Any]) -> bool:
        names = self._names(shape, content)
        return all(has(content, names[key]) for key in shape.keys)

    def _detect(self, row: Row) -> str:
        shapes = SHAPES[self.task]
        fitting = [name for name, shape in shapes.items() if self._fits(shape, row.content)]
        mapped = [name for name, shape in shapes.items() if self.columns.keys() & shape.keys.keys()]
        if choice := next((name for name in [*mapped, *fitting] if not mapped or name in mapped), None):
            return choice
        other = next(
            (task for task, known in SHAPES.items() if any(self._fits(shape, row.content) for shape in known.values())),
            None,
        )
        hint = f"; they look like task: {other}" if other else ""
        raise Fault(
            f"the keys {', '.join(row.content) or 'none'}",
            f"expected {' or '.join(shapes)} for task: {self.task}; map others with `columns:` in the scenario{hint}",
        )

    def _fields(self, row: Row) -> dict[str, Any]:
        if self.shape is None:
            self.shape = (self._detect(row), row.where)
        name, first = self.shape
        shape = SHAPES[self.task][name]
        names = self._names(shape, row.content)
        values = {}
        for key in [*shape.keys, *shape.optional]:
            try:
                values[key] = reach(row.content, names[key])
            except KeyError as error:
                if key in shape.keys:
                    raise self._missing(row, names[key], error.args[0], first) from None
        if "language" in shape.optional and "language" not in values and self.needs_language:
            raise Fault(names["language"], "missing; add the column, or name the language in `prompt:` of the scenario")
        return shape.build(values, names)

    def _missing(self, row: Row, column: str, keys: str, first: str) -> Fault:
        assert self.shape is not None
        for name, shape in SHAPES[self.task].items():
            if name != self.shape[0] and self._fits(shape, row.content):
                return Fault(
                    column, f"missing: this row has the shape {name}, but {first} has {self.shape[0]}; use one shape"
                )
        return Fault(
            column,
            f"expected a value, found nothing; there are the keys {keys} (map others with `columns:` in the scenario)",
        )

    def _own_id(self, row: Row) -> str:
        column = self.columns["id"]
        value = reach(row.content, column) if has(row.content, column) else None
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise Fault(column, f"expected a string or a whole number, found {found(value)}")
        if (other := self.ids.setdefault(str(value), row.where)) != row.where:
            raise Fault(column, f"{value!r} is the id of {other} too; expected another for each row")
        return str(value)

    def _group(self, row: Row, fields: dict[str, Any]) -> str:
        column = self.columns.get("group", "group")
        if has(row.content, column) and (value := reach(row.content, column)) not in (None, ""):
            return str(value)
        if "group" in self.columns:
            raise Fault(column, "expected the row's group, found nothing")
        return default_group(self.task, fields)

    def _split(self, row: Row) -> str | None:
        column = self.columns.get("split", "split")
        if not self.one_file or ("split" not in self.columns and "split" not in row.content):
            return row.split
        value = reach(row.content, column) if has(row.content, column) else None
        if value not in SPLITS:
            raise Fault(column, f"expected {', '.join(SPLITS)}, found {found(value)}")
        return str(value)


def default_group(task: str, fields: dict[str, Any]) -> str:
    """What two rows mustn't share across splits: their text, or the passage of several questions."""
    if task == "chat":
        return "\n".join(message["content"] for message in fields["messages"] if message["role"] != "system").lower()
    if task == "tagging":
        return " ".join(fields["tokens"]).lower()
    key = {"translation": "source", "qa": "context", "generation": "completion"}.get(task, "text")
    return str(fields[key]).lower()
