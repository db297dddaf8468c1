"""Texts of a few libraries, split by module: how well a model continues documentation of modules unseen in training."""

import collections
from pathlib import Path

from snaketune.core.hashing import hash_order
from snaketune.corpora import Example, Row, capped, cut, rows

# A test row must be in the corpus' own test split too, which holds an eighth of it.
HELD_OUT = {"test": 0.3, "validation": 0.2}


def module_of(row: Row) -> str:
    """What stays on one side of the split: a module, or a topic of Python's language reference."""
    return f"{row['library']}.{row['name'].split('.')[0]}" if row["kind"] == "reference" else row["module"]


def split_of(module: str, splits: set[str]) -> str:
    """The only split that the corpus has of a module, or one by a hash of its name."""
    if len(splits) == 1:
        return min(splits)
    position = int(hash_order(module)[:8], 16) / 16**8
    if position < HELD_OUT["test"]:
        return "test"
    return "validation" if position < HELD_OUT["test"] + HELD_OUT["validation"] else "train"


def examples(corpus: Path, *, libraries: list[str], max_characters: int, min_characters: int) -> list[Example]:
    """Rows of language modelling, of which none of test or validation was seen in pre-training.

    A row is kept where its module's split is the corpus' split of the row as well: no test text was trained on
    by the base model, and no module of the test split is trained on by fine-tuning.

    Args:
        libraries: distributions of the corpus; ``python`` is its language reference.
        max_characters: texts are cut to so many, at a word.
        min_characters: shorter texts are left out.
    """
    chosen = [(name, row) for name, row in rows(corpus) if row["library"] in libraries]
    splits: dict[str, set[str]] = collections.defaultdict(set)
    for _, row in chosen:
        splits[module_of(row)].add(row["split"])
    found = []
    for name, row in chosen:
        module = module_of(row)
        text = cut(" ".join(row["text"].split()), max_characters)
        if len(text) >= min_characters and split_of(module, splits[module]) == row["split"]:
            found.append({"id": name, "text": text, "group": module, "split": row["split"]})
    return capped(found)
