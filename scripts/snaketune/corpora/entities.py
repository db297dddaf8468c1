"""Sentences of docstrings with their code names tagged: the built-in corpus of tagging.

The installed libraries decide: a word is an entity if it resolves to a module, class, function, exception or constant: in the documented
class, its module, its library, the builtins, or as a full path from a library.
"""

import builtins
import functools
import importlib
import inspect
import operator
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.core.hashing import hash_order
from snaketune.core.layout import SPLITS
from snaketune.corpora.docstrings import MARKUP, Row, capped, parse, rows, sentences
from snaketune.data.examples import Example

# Libraries of the corpus that import fast and without side effects, with their packages.
LIBRARIES = {name: name for name in ("matplotlib", "networkx", "numpy", "pandas", "scipy", "sympy")}
LIBRARIES["scikit-learn"] = "sklearn"
# Modules of the standard library whose members docstrings name by their full path.
STANDARD = (
    "collections", "contextlib", "copy", "datetime", "decimal", "fractions", "functools", "inspect", "io", "itertools",
    "json", "logging", "math", "operator", "os", "pathlib", "pickle", "random", "re", "string", "sys", "time", "typing",
    "warnings",
)  # fmt: skip
# Tests, and what needs a display, a compiler or another library.
LEFT_OUT = re.compile(r"\b_|\b(?:tests?|testing|conftest|backends|sphinxext|distutils|f2py|pygletplot)\b|_test\b")
LEFT_OUT_SECTIONS = re.compile(r"examples?|references|see also|methods|authors?", re.IGNORECASE)
UNREADABLE = re.compile(r"[`\\$|{}=^<>@#~]|>>>|https?:|\*\w|\.\.\.|\[\w*\]_|::|--|(?:^|\s):\w")
NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
# The atomic group keeps a word with a hyphen whole; "array(s)" is a plural, "array(x)" a call.
WORD = re.compile(
    rf"(?:e\.g|i\.e)\.|(?P<name>(?>{NAME}))(?:(?P<call>\(\)|(?=\((?!e?s\))))|(?!['’-]\w))"
    rf"|{NAME}(?:['’-]\w+)+|\d+(?:\.\d+)*(?:-\w+)*|[^\w\s]"
)
UNDERLINE = re.compile(r"\s*[-=~^]{3,}\s*")
# Names of code that need no mark-up: dotted, with an underscore, in camel case, in capitals.
CODE_LIKE = re.compile(r"\w+(?:\.\w+)+|\w+_\w+|[A-Z]?[a-z0-9]+[A-Z]\w*|[A-Z]{2,}[a-z]\w*|[A-Z][A-Z0-9_]+")
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*[A-Z0-9]")
MISSING = object()


@functools.cache
def load(module: str) -> Any:
    """Import a module, or return None if it can't be imported on this machine."""
    try:
        return importlib.import_module(module)
    except Exception:
        return None


def follow(space: Any, path: str) -> Any:
    """Return the object at a dotted path from ``space``, or MISSING."""
    try:
        return operator.attrgetter(path)(space)
    except Exception:
        return MISSING


def type_of(name: str, thing: Any) -> str:
    """Return the entity type of ``thing``, which a text calls ``name``, or an empty string."""
    if inspect.ismodule(thing):
        # `graph`, alone, is an argument or an attribute rather than the module networkx.classes.graph.
        return "module" if "." in name or "." not in thing.__name__ else ""
    if inspect.isclass(thing):
        return "exception" if issubclass(thing, BaseException) else "class"
    if callable(thing) and (inspect.isroutine(thing) or isinstance(thing, np.ufunc)):
        return "function"
    if CONSTANT.fullmatch(name.rsplit(".", 1)[-1]) and thing is not MISSING:
        return "constant"
    return ""


class Names:
    """Resolve the words of one docstring to what they name."""

    def __init__(self, row: Row):
        module = load(row["module"])
        owner = follow(module, row["name"].split(".")[0])
        self.spaces: list[Any] = [owner] if inspect.isclass(owner) else []
        self.spaces += [module, load(LIBRARIES[row["library"]]), builtins]
        self.text, self.documented = row["text"], follow(module, row["name"]) if row["name"] else module

    @functools.cached_property
    def parameters(self) -> set[str]:
        """Names of the documented object's own parameters and attributes, which aren't what they may resolve to."""
        sections = parse(self.text).sections
        items = [item for section in ("Parameters", "Other Parameters", "Attributes") for item in sections[section]]
        names = {name.strip(" *") for item in items for name in item.name.split(",")}
        try:
            return names | set(inspect.signature(self.documented).parameters)
        except (TypeError, ValueError):
            return names

    def type_of(self, name: str, marked: bool) -> str:
        """Return the entity type of a word, or an empty string; the innermost definition decides."""
        if len(name) < 2 or not (marked or CODE_LIKE.fullmatch(name)) or name in self.parameters:
            return ""
        for space in self.spaces:
            if (thing := follow(space, name)) is not MISSING:
                return type_of(name, thing)
        root, _, rest = name.partition(".")
        if root in LIBRARIES.values() or (rest and root in STANDARD):
            return type_of(name, follow(load(root), rest) if rest else load(root))
        return ""


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of prose, the descriptions of parameters among them; lines of one paragraph have one indentation."""
    lines = text.splitlines()
    block: list[str] = []
    depth, title = 0, ""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        bullet = re.match(r"\s*(?:[-*+]|\d+\.)\s+", line)
        indentation = bullet.end() if bullet else len(line) - len(line.lstrip())
        heading = UNDERLINE.fullmatch(following) or UNDERLINE.fullmatch(line)
        if block and (heading or bullet or not line.strip() or indentation != depth):
            yield " ".join(block)
            block = []
        if UNDERLINE.fullmatch(following):
            title = line.strip()
        elif line.strip() and not heading and not LEFT_OUT_SECTIONS.fullmatch(title):
            block.append(line[indentation:].strip())
            depth = indentation
    if block:
        yield " ".join(block)


def words(sentence: str) -> list[tuple[str, bool]]:
    """Tokens of a sentence, each with whether it was marked up as code; the mark-up itself is gone."""
    found: list[tuple[str, bool]] = []
    end = 0
    for match in MARKUP.finditer(sentence):
        found += _bare_words(sentence[end : match.start()])
        inner = match["quoted"] or match["literal"]
        name = re.fullmatch(rf"\s*\.?({NAME})(?:\(\))?\s*", inner)
        found += [(name[1], True)] if name else _bare_words(inner)
        end = match.end()
    return found + _bare_words(sentence[end:])


def _bare_words(text: str) -> list[tuple[str, bool]]:
    return [(match["name"] or match[0], match["call"] is not None) for match in WORD.finditer(text)]


def tagged(sentence: str, names: Names) -> tuple[list[str], list[str]] | None:
    """Tokens and their BIO tags; none where a capitalised word may be a class or a word of English."""
    tokens, tags = [], []
    for word, marked in words(sentence):
        if not marked and re.fullmatch(r"[A-Z][a-z]+", word) and names.type_of(word, True):
            return None
        tokens.append(word)
        found = names.type_of(word, marked)
        tags.append(f"B-{found}" if found else "O")
    return tokens, tags


def prose(text: str) -> Iterator[str]:
    """Sentences of a docstring that are whole and hold no formula or code."""
    for paragraph in paragraphs(text):
        for sentence in sentences(paragraph):
            bare = MARKUP.sub(lambda match: match["quoted"] or match["literal"], sentence)
            whole = re.match(r"[A-Z`:]", sentence) and bare.endswith(".")
            if whole and not UNREADABLE.search(bare) and ":math:" not in sentence:
                yield sentence


def examples(corpus: Path, *, max_words: int, min_words: int) -> list[Example]:
    """Return sentences with an entity, and a quarter as many without.

    A sentence of several docstrings is kept once, in the test split rather than in training.

    Args:
        max_words, min_words: limits of a sentence's tokens, punctuation included.
    """
    seen, found = set[str](), list[Example]()
    with warnings.catch_warnings(record=True):
        # All modules are there before the first word is looked up: what resolves doesn't depend on the order.
        chosen = [
            (name, row)
            for name, row in rows(corpus)
            if row["library"] in LIBRARIES and not LEFT_OUT.search(row["module"]) and load(row["module"]) is not None
        ]
        for name, row in sorted(chosen, key=lambda pair: SPLITS[::-1].index(pair[1]["split"])):
            names = Names(row)
            for number, sentence in enumerate(prose(row["text"])):
                tokens, tags = tagged(sentence, names) or ([], [])
                if min_words <= len(tokens) <= max_words and (text := " ".join(tokens)) not in seen:
                    seen.add(text)
                    fields = {"tokens": tokens, "tags": tags}
                    found.append(Example(f"{name}#{number}", fields, row["group"], row["split"]))
    return capped(_with_some_plain(found))


def _with_some_plain(found: list[Example]) -> list[Example]:
    kept = []
    for split in SPLITS:
        of_split = [one for one in found if one.split == split]
        named, plain = (
            [one for one in of_split if (set(one.fields["tags"]) == {"O"}) is bare] for bare in (False, True)
        )
        # Not by the id alone: whoever takes the first rows in that order would get these first.
        kept += named + sorted(plain, key=lambda one: hash_order(f"plain {one.id}"))[: len(named) // 4]
    return sorted(kept, key=lambda one: one.id)
