"""Documentation of a few libraries, split by module: the built-in corpus of language modeling."""

import collections
from pathlib import Path

from snaketune.corpora.docstrings import Row, capped, cut, rows
from snaketune.data.examples import Example, split_of

# A test row must be in the corpus' own test split too, which holds an eighth of it.
HELD_OUT = {"test": 0.3, "validation": 0.2}


def module_of(row: Row) -> str:
    """Return the unit that is in one split: a module, or a topic of Python's language reference."""
    return f"{row['library']}.{row['name'].split('.')[0]}" if row["kind"] == "reference" else row["module"]


def examples(corpus: Path, *, libraries: list[str], max_characters: int, min_characters: int) -> list[Example]:
    """Return texts of modules, none of whose test and validation texts was seen in pre-training.

    A row is kept if its module's split is also the row's split in the corpus: the base model was trained on no
    test text, and fine-tuning trains on no module of the test split. A module that has one split in the corpus keeps it.

    Args:
        libraries: distributions of the corpus; ``python`` is its language reference.
        max_characters: longer texts are cut after a word.
        min_characters: shorter texts are left out.
    """
    chosen = [(name, row) for name, row in rows(corpus) if row["library"] in libraries]
    splits: dict[str, set[str]] = collections.defaultdict(set)
    for _, row in chosen:
        splits[module_of(row)].add(row["split"])
    kept = []
    for name, row in chosen:
        module = module_of(row)
        text = cut(" ".join(row["text"].split()), max_characters)
        kept_split = min(splits[module]) if len(splits[module]) == 1 else split_of(module, **HELD_OUT)
        if len(text) >= min_characters and kept_split == row["split"]:
            kept.append(Example(name, {"text": text}, module, row["split"]))
    return capped(kept)
