"""Docstrings labelled with the area of the library that they come from."""

import re
from pathlib import Path

from snaketune.corpora import Example, cut, rows


def examples(
    corpus: Path, *, areas: dict[str, list[str]], aliases: list[str], max_characters: int, min_characters: int
) -> list[Example]:
    """Rows of classification: a docstring without the names that would give its area away.

    Args:
        areas: label: modules whose docstrings get it; the longest prefix decides.
        aliases: words removed from the texts with the names of library, package and module.
        max_characters: texts are cut to so many, at a word.
        min_characters: shorter texts are left out.
    """
    prefixes = sorted(
        ((prefix, area) for area, modules in areas.items() for prefix in modules),
        key=lambda pair: -len(pair[0]),
    )
    found = []
    for name, row in rows(corpus):
        area = next((area for prefix, area in prefixes if f"{row['module']}.".startswith(f"{prefix}.")), None)
        if area is None or row["kind"] == "module":
            continue
        parts = row["module"].split(".")
        text = without_names(row["text"], {row["library"], *parts, *(part.strip("_") for part in parts), *aliases})
        found.append(
            {
                "id": name,
                "text": cut(text, max_characters),
                "label": area,
                "group": row["group"],
                "split": row["split"],
            }
        )
    return [example for example in found if len(example["text"]) >= min_characters]


def without_names(text: str, names: set[str]) -> str:
    """``text`` without the given words, in any case, and with white space collapsed."""
    words = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)) if name)
    return " ".join(re.sub(rf"(?<!\w)(?:{words})(?!\w)", " ", text, flags=re.IGNORECASE).split())
