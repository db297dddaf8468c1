"""What is asked of an example of any task: where it stands, its texts, and what makes it like another."""

from typing import Any

from snaketune.config.templates import Example

# Of an example; all else are the fields of its task.
ABOUT = ("id", "where", "group", "split", "given")


def place(example: Example) -> str:
    return str(example.get("where", example["id"]))


def texts_of(example: Example) -> list[str]:
    """All that a model would read or write."""
    found = []
    for key, value in example.items():
        if key == "messages":
            found += [message["content"] for message in value]
        elif key in ("tokens", "tags"):
            found.append(" ".join(value))
        elif key not in ABOUT:
            found += value if isinstance(value, list) else [value]
    return found


def parts_of(task: str, example: Example) -> tuple[str, ...]:
    """The texts by which rows are duplicates of one another, each like the other's.

    Many questions may be about one passage, so the question and its answer are a part of their own.
    One name may be the same in two languages, so the language is a part of its own.
    Many conversations may begin with one system message, so it doesn't count.
    """
    if task == "tagging":
        return (" ".join(example["tokens"]),)
    if task == "translation":
        return (f"{example['source']} {example['target']}", example.get("language", ""))
    if task == "qa":
        return (f"{example['question']} {next(iter(example['answers']), '')}", example["context"])
    if task == "chat":
        return ("\n".join(m["content"] for m in example["messages"] if m["role"] != "system"),)
    return (example["completion" if task == "generation" else "text"],)


def default_group(task: str, fields: dict[str, Any]) -> str:
    """What two rows mustn't share across splits: their text, or the passage of several questions."""
    if task == "chat":
        return "\n".join(message["content"] for message in fields["messages"] if message["role"] != "system").lower()
    if task == "tagging":
        return " ".join(fields["tokens"]).lower()
    key = {"translation": "source", "qa": "context", "generation": "completion"}.get(task, "text")
    return str(fields[key]).lower()


def entity_types(example: Example) -> set[str]:
    return {tag[2:] for tag in example["tags"] if tag != "O"}
