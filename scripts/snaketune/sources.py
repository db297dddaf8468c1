"""Where a scenario's labelled examples come from: the built-in corpus or a user's file."""

import hashlib
import re
from pathlib import Path
from typing import Any

from snaketune.errors import UserError
from snaketune.files import read_jsonl

Example = dict[str, str]


def hash_order(key: str) -> str:
    """A sort key that shuffles without a random generator: the same on every machine."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_examples(source: dict[str, Any], path: Path) -> list[Example]:
    """Examples with id, text, label, group and, where the source fixes it, split.

    Raises:
        UserError: the user's file is malformed; the message names the file and the line.
    """
    if source["path"]:
        return _from_file(path, source["columns"])
    return _documentation_areas(read_jsonl(path), source)


def _from_file(path: Path, columns: dict[str, str]) -> list[Example]:
    examples = []
    for number, row in enumerate(read_jsonl(path), start=1):
        example = {"id": f"{path.name}:{number}"}
        for field in ("text", "label"):
            value = row.get(columns[field])
            if not isinstance(value, str) or not value.strip():
                found = "nothing" if columns[field] not in row else repr(value)[:60]
                raise UserError(
                    f"{path}, row {number}: expected a non-empty string in {columns[field]!r}, found {found}; the row has the keys {', '.join(sorted(row)) or 'none'} (map others with `columns:` in the scenario)"
                )
            example[field] = value.strip()
        examples.append(
            example
            | {"group": str(example["text"].lower() if row.get(columns["group"]) is None else row[columns["group"]])}
        )
    return examples


def _documentation_areas(corpus: list[dict[str, Any]], source: dict[str, Any]) -> list[Example]:
    """Docstrings labelled with the area of the library that they come from."""
    prefixes = sorted(
        ((prefix, area) for area, modules in source["areas"].items() for prefix in modules),
        key=lambda pair: -len(pair[0]),
    )
    aliases = set(source["aliases"])
    examples = []
    for row in corpus:
        area = next((area for prefix, area in prefixes if f"{row['module']}.".startswith(f"{prefix}.")), None)
        if area is None or row["kind"] == "module":
            continue
        parts = row["module"].split(".")
        text = without_names(row["text"], {row["library"], *parts, *(part.strip("_") for part in parts), *aliases})
        examples.append(
            {
                "id": f"{row['module']}:{row['name']}",
                "text": _cut(text, source["max_characters"]),
                "label": area,
                "group": row["group"],
                "split": row["split"],
            }
        )
    return [example for example in examples if len(example["text"]) >= source["min_characters"]]


def without_names(text: str, names: set[str]) -> str:
    """``text`` without the given words, in any case, and with white space collapsed."""
    words = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)) if name)
    return " ".join(re.sub(rf"(?<!\w)(?:{words})(?!\w)", " ", text, flags=re.IGNORECASE).split())


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length + 1].rsplit(" ", 1)[0][:length]
