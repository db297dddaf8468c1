"""The values of a raw row, checked and converted to what its task needs; conversations in their common formats."""

from collections.abc import Callable
from typing import Any, NamedTuple

from snaketune.data.examples import Fields
from snaketune.data.raw_rows import Fault, describe

ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES = ROLES | {"human": "user", "gpt": "assistant"}

# What other programs take for whether a turn is learned.
LEARNED = ("weight", "train")
# Other usual names of a column.
ALIASES = {"tags": "ner_tags"}
# Labels of a message that aren't for the model.
LABELS = ("name", "id")
# Columns that change a conversation, or whether it is learned, for other programs.
UNUSED = (
    "tools", "functions", "system", "history", "weight", "train", "reasoning_content", "reasoning", "thinking",
    "documents", "images", "chat_template_kwargs",
)  # fmt: skip

Messages = list[dict[str, Any]]


class Cell(NamedTuple):
    """A value of a row and the name of its column."""

    value: Any
    name: str


Cells = dict[str, Cell]


class Format(NamedTuple):
    """Keys that a row must have, and the fields that they become."""

    name: str
    keys: tuple[str, ...]
    build: Callable[[Cells], Fields]
    optional: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    """Columns that other programs read and that must not be dropped in silence."""


def string(cell: Cell) -> str:
    if not isinstance(cell.value, str):
        raise Fault(cell.name, f"expected a string, found {describe(cell.value)}")
    if "\0" in cell.value:
        raise Fault(cell.name, "a NUL character")
    return cell.value


def text(cell: Cell) -> str:
    """Return a string without surrounding white space; null becomes the empty string, which the gate counts."""
    return "" if cell.value is None else string(cell).strip()


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
    """Return messages in order: an optional system message, then user and assistant in turn, the assistant last."""
    if not isinstance(cell.value, list) or not cell.value:
        raise Fault(cell.name, f"expected a list of messages, found {describe(cell.value)}")
    messages = [_message(message, f"{cell.name}[{number}]") for number, message in enumerate(cell.value)]
    start = int(messages[0]["role"] == "system")
    for number, message in enumerate(messages[start:], start):
        role, expected = message["role"], ("user", "assistant")[(number - start) % 2]
        if role != expected:
            after = f" after {messages[number - 1]['role']}" if number else ""
            only = "; system may only be first" if role == "system" else ""
            raise Fault(f"{cell.name}[{number}].role", f"expected {expected}{after}, found {role}{only}")
    if messages[-1]["role"] != "assistant":
        raise Fault(cell.name, f"expected the assistant's turn last, found {messages[-1]['role']}")
    if "weight" in messages[-1]:
        raise Fault(
            f"{cell.name}[{len(messages) - 1}]", "the last answer is scored, so it must count; leave the turn out"
        )
    return messages


def _message(message: Any, name: str) -> dict[str, Any]:
    """Return role and content, and `weight: 0` for an answer that isn't to be learned."""
    if not isinstance(message, dict):
        raise Fault(name, f"expected a message with role and content, found {describe(message)}")
    sharegpt = "from" in message
    columns, roles = (("from", "value"), SHAREGPT_ROLES) if sharegpt else (("role", "content"), ROLES)
    for key in columns:
        if key not in message:
            raise Fault(f"{name}.{key}", f"missing; the message has the keys {', '.join(message) or 'none'}")
        if not string(Cell(message[key], f"{name}.{key}")).strip():
            raise Fault(f"{name}.{key}", f"expected a non-empty string, found {describe(message[key])}")
    role, content = (message[key] for key in columns)
    if role not in roles:
        raise Fault(f"{name}.{columns[0]}", f"expected {', '.join(roles)}, found {role!r}")
    for key, value in message.items():
        if key not in (*columns, *LEARNED, *LABELS) and value not in (None, "", [], {}):
            raise Fault(
                f"{name}.{key}", f"isn't used, found {describe(value)}; leave it out, or write it into {columns[1]}"
            )
    learned = [_learned(Cell(message[key], f"{name}.{key}"), roles[role]) for key in LEARNED if key in message]
    return {"role": roles[role], "content": content, **({} if all(learned) else {"weight": 0})}


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
    return Format(name, columns, lambda cells: {"messages": read(cells)}, optional, UNUSED)


CONVERSATIONS = (
    _chat("messages", ("messages",), lambda cells: conversation(cells["messages"])),
    _chat("conversations (ShareGPT)", ("conversations",), lambda cells: conversation(cells["conversations"])),
    _chat("prompt + completion", ("prompt", "completion"), _prompt_and_completion),
    _chat("instruction + output (Alpaca)", ("instruction", "output"), _alpaca, "input"),
)
