"""Docstrings labelled with the area of the library that they come from: the built-in corpus of classification."""

import re
from pathlib import Path

from snaketune.corpora.docstrings import cut, rows
from snaketune.data.examples import Example


def examples(
    corpus: Path, *, areas: dict[str, list[str]], aliases: list[str], max_characters: int, min_characters: int
) -> list[Example]:
    """Return docstrings without the names that would give their area away.

    Args:
        areas: label: modules whose docstrings get it; the longest prefix decides.
        aliases: words removed from the texts with the names of library, package and module.
        max_characters: longer texts are cut after a word.
        min_characters: shorter texts are left out.
    """
    area_of = {f"{prefix}.": area for area, modules in areas.items() for prefix in modules}
    kept = []
    for name, row in rows(corpus):
        prefix = max((one for one in area_of if f"{row['module']}.".startswith(one)), key=len, default="")
        if not prefix or row["kind"] == "module":
            continue
        parts = row["module"].split(".")
        text = without_names(row["text"], {row["library"], *parts, *(part.strip("_") for part in parts), *aliases})
        short = cut(text, max_characters)
        if len(short) >= min_characters:
            kept.append(Example(name, {"text": short, "label": area_of[prefix]}, row["group"], row["split"]))
    return kept


def without_names(text: str, names: set[str]) -> str:
    """Remove the given words in any case, and collapse white space."""
    words = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)) if name)
    return " ".join(re.sub(rf"(?<!\w)(?:{words})(?!\w)", " ", text, flags=re.IGNORECASE).split())
