"""The values of a raw row, checked and converted to what its task needs; conversations in their common formats."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from snaketune.core.files import write_text
from snaketune.data.examples import Fields
from snaketune.data.raw_rows import EMPTY, Cell, Cells, Fault, describe, string, text
from snaketune.data.tools_and_calls import calls_of, tools_of

ROLES = {name: name for name in ("system", "user", "assistant", "tool", "function")}
SHAREGPT_ROLES = ROLES | {"human": "user", "gpt": "assistant"}
# Which roles may follow each; system turns may stand anywhere, and the chat template decides whether they may.
MAY_FOLLOW = {
    "": ("user",), "user": ("assistant",), "assistant": ("user", "tool", "function"),
    "tool": ("assistant", "tool"), "function": ("assistant", "function"),
}  # fmt: skip

# What other programs take for whether a turn is learned.
LEARNED = ("weight", "train")
# Other usual names of a column.
ALIASES = {"tags": "ner_tags"}
# Labels of a message that aren't for the model.
LABELS = ("name", "id")
# Columns that change a conversation, or whether it is learned, for other programs.
UNUSED = (
    "functions", "system", "history", "weight", "train", "reasoning_content", "reasoning", "thinking",
    "documents", "images", "chat_template_kwargs",
)  # fmt: skip

Messages = list[dict[str, Any]]


class Format(NamedTuple):
    """Keys that a row must have, and the fields that they become."""

    name: str
    keys: tuple[str, ...]
    build: Callable[[Cells], Fields]
    optional: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    """Columns that other programs read and that must not be dropped in silence."""


def label(cell: Cell) -> str:
    """Return a text, or a whole number as CSV would write it."""
    if isinstance(cell.value, int) and not isinstance(cell.value, bool):
        return str(cell.value)
    if cell.value is not None and not isinstance(cell.value, str):
        raise Fault(cell.name, f"expected a string or a whole number, found {describe(cell.value)}")
    return text(cell)


def words(cell: Cell) -> list[str]:
    """Return a list of words, which may be given as one string with spaces between them."""
    if isinstance(cell.value, str):
        return string(cell).split()
    if not isinstance(cell.value, list):
        raise Fault(cell.name, f"expected a list of strings, found {describe(cell.value)}")
    for number, word in enumerate(cell.value):
        if not isinstance(word, str) or not word.strip() or word != word.strip() or "\0" in word:
            raise Fault(f"{cell.name}[{number}]", f"expected a word, found {describe(word)}")
    return cell.value


def conversation(cell: Cell) -> Messages:
    """Return messages in order: user and assistant in turn, perhaps with answers of tools between, the assistant last."""
    if not isinstance(cell.value, list) or not cell.value:
        raise Fault(cell.name, f"expected a list of messages, found {describe(cell.value)}")
    messages = [_message(message, f"{cell.name}[{number}]") for number, message in enumerate(cell.value)]
    before = ""
    for number, role in enumerate(message["role"] for message in messages):
        if role == "system":
            continue
        if role not in MAY_FOLLOW[before]:
            after = f" after {before}" if before else ""
            raise Fault(
                f"{cell.name}[{number}].role", f"expected {' or '.join(MAY_FOLLOW[before])}{after}, found {role}"
            )
        before = role
    if messages[-1]["role"] != "assistant":
        raise Fault(cell.name, f"expected the assistant's turn last, found {messages[-1]['role']}")
    if "weight" in messages[-1]:
        raise Fault(
            f"{cell.name}[{len(messages) - 1}]", "the last answer is scored, so it must count; leave the turn out"
        )
    return messages


def _message(message: Any, name: str) -> dict[str, Any]:
    """Return role and content, what else a template may write, and `weight: 0` for an answer that isn't to be learned."""
    if not isinstance(message, dict):
        raise Fault(name, f"expected a message with role and content, found {describe(message)}")
    sharegpt = "from" in message
    columns, roles = (("from", "value"), SHAREGPT_ROLES) if sharegpt else (("role", "content"), ROLES)
    given = {key: Cell(value, f"{name}.{key}") for key, value in message.items() if value not in EMPTY}
    for key in columns:
        if key not in message and not (key == "content" and "tool_calls" in given):
            raise Fault(f"{name}.{key}", f"missing; the message has the keys {', '.join(message) or 'none'}")
    given_role = string(Cell(message[columns[0]], f"{name}.{columns[0]}"))
    if given_role not in roles:
        raise Fault(f"{name}.{columns[0]}", f"expected {', '.join(roles)}, found {given_role!r}")
    role = roles[given_role]
    used = TEMPLATE_KEYS.get(role, {})
    for key, cell in given.items():
        if key not in (*columns, *LEARNED, *LABELS, *used):
            hint = f"leave it out, or write it into {columns[1]}"
            raise Fault(cell.name, f"isn't used, found {describe(cell.value)}; {hint}")
    more = {key: value for key in used if key in given and (value := used[key](given[key]))}
    only_calls = more.get("tool_calls") and columns[1] not in given
    content = "" if only_calls else _content(Cell(message.get(columns[1]), f"{name}.{columns[1]}"))
    learned = [_learned(Cell(message[key], f"{name}.{key}"), role) for key in LEARNED if key in message]
    return {"role": role, "content": content, **more, **({} if all(learned) else {"weight": 0})}


def _content(cell: Cell) -> str:
    """Return a text, or the texts of a list of parts, joined as templates join them: with nothing between."""
    parts = cell.value if isinstance(cell.value, list) and cell.value else []
    for number, part in enumerate(parts):
        used = isinstance(part, dict) and {key for key, value in part.items() if value not in EMPTY}
        if isinstance(part, dict) and part.get("text") == "" and part.get("type", "text") == "text":
            raise Fault(f"{cell.name}[{number}].text", "empty; leave the part out")
        if not used or part.get("type", "text") != "text" or not {"text"} <= used <= {"type", "text"}:
            found = f'expected {{"type": "text", "text": …}}, found {describe(part)}; only texts are learned'
            raise Fault(f"{cell.name}[{number}]", found)
    found = "".join(string(Cell(part["text"], f"{cell.name}[{n}].text")) for n, part in enumerate(parts))
    if not (found or string(cell)).strip():
        raise Fault(cell.name, f"expected a non-empty string, found {describe(cell.value)}")
    return found or string(cell)


# What a template may write of a message besides its content.
TEMPLATE_KEYS: dict[str, dict[str, Callable[[Cell], Any]]] = {
    "assistant": {"reasoning_content": text, "tool_calls": calls_of},
    "tool": {"name": string, "tool_call_id": string},
    "function": {"name": string},
}


def _sorted(value: Any) -> Any:
    """Sort keys, but those of tools and calls: templates write these in the order in which they are given."""
    if isinstance(value, dict):
        return {key: one if key in ("tools", "tool_calls") else _sorted(one) for key, one in sorted(value.items())}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


def write_prepared(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write prepared rows as JSONL."""
    lines = (json.dumps(_sorted(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_text(path, "".join(lines))


def beyond_texts(row: dict[str, Any]) -> str:
    """Name what a chat has beyond texts of system, user and assistant, which isn't for every trainer; or nothing."""
    keys = [key for message in row["messages"] for key in TEMPLATE_KEYS["assistant"] if message.get(key)]
    roles = [f"role: {one['role']}" for one in row["messages"] if one["role"] in ("tool", "function")]
    return next(iter([*(["tools"] if row.get("tools") else []), *keys, *roles]), "")


def _learned(cell: Cell, role: str) -> bool:
    """Return whether a turn counts in training, as OpenAI's `weight` and Axolotl's `train` say."""
    if cell.value not in (None, 0, 1):
        raise Fault(cell.name, f"expected 0 or 1, true or false, found {describe(cell.value)}")
    if cell.value and role != "assistant":
        raise Fault(cell.name, f"only the assistant's turns are learned, found {describe(cell.value)} on {role}")
    return cell.value != 0 or role != "assistant"


def exchange(prompt: str, completion: str) -> Messages:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def _prompt_and_completion(cells: Cells) -> Messages:
    """Both are strings, or both are lists of messages."""
    prompt, completion = cells["prompt"], cells["completion"]
    if isinstance(prompt.value, list) != isinstance(completion.value, list):
        found = f"expected what prompt is, {describe(prompt.value)}; found {describe(completion.value)}"
        raise Fault(completion.name, found)
    if isinstance(prompt.value, list):
        return conversation(Cell([*prompt.value, *completion.value], f"{prompt.name} + {completion.name}"))
    return exchange(text(prompt), text(completion))


def _alpaca(cells: Cells) -> Messages:
    parts = [text(cells[key]) for key in ("instruction", "input") if key in cells]
    return exchange("\n".join(part for part in parts if part), text(cells["output"]))


def _chat(name: str, columns: tuple[str, ...], read: Callable[[Cells], Messages], *optional: str) -> Format:
    def build(cells: Cells) -> Fields:
        tools = tools_of(cells.get("tools", Cell(None, "tools")))
        return {"messages": read(cells), **({"tools": tools} if tools else {})}

    return Format(name, columns, build, (*optional, "tools"), UNUSED)


CONVERSATIONS = (
    _chat("messages", ("messages",), lambda cells: conversation(cells["messages"])),
    _chat("conversations (ShareGPT)", ("conversations",), lambda cells: conversation(cells["conversations"])),
    _chat("prompt + completion", ("prompt", "completion"), _prompt_and_completion),
    _chat("instruction + output (Alpaca)", ("instruction", "output"), _alpaca, "input"),
)
