"""Read the docstrings that scripts/collect_documentation.py collects, for the corpora that are made from them."""

import collections
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from snaketune.core.files import read_jsonl
from snaketune.core.hashing import hash_order
from snaketune.core.layout import SPLITS
from snaketune.data.examples import Example

Row = dict[str, str]
Option = TypeVar("Option")

MOST_EXAMPLES = 20_000
MARKUP = re.compile(
    r"(?::[a-z][\w:+.-]*:)?`(?P<hidden>[~!]?)(?P<quoted>[^`<]+?)(?:\s*<[^`>]*>)?`_{0,2}|``(?P<literal>[^`]+)``"
)
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|Fig|Eq|Ref|No|resp|approx|[A-Z])|\s)\.$")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`:\"'(\[])")
SECTIONS = ("Parameters", "Other Parameters", "Attributes", "Returns", "Yields", "Raises")
NAMES = re.compile(r"\*{0,2}[A-Za-z_]\w*(?:\s*,\s*\*{0,2}[A-Za-z_]\w*)*")
EXCEPTION = re.compile(r"(?:\w+\.)*[A-Z]\w+")
DEFAULT = re.compile(
    r"\bdefaults?(?:\s+is|\s+to)?\s*[=:]?\s*('[^']*'|\"[^\"]*\"|[-+]?\d[\d.]*(?:e[-+]?\d+)?|[A-Za-z_][\w.]*\w)\s*[).]?$"
)
# What follows the type in the line of a parameter.
AFTER_TYPE = re.compile(r"[\s,;.(]*\b(?:optional|default\w*|keyword|kwarg)\b.*$|[\s,;.]+$", re.IGNORECASE)
MATHS = re.compile(r":math:|\$|\\|::|\|\S")


@dataclass(frozen=True)
class Item:
    """An entry of a section: a parameter, a returned value or an exception."""

    name: str
    type: str
    description: str

    @property
    def bare_type(self) -> str:
        """The type without a default and without "optional"; empty if that leaves a bracket open."""
        bare = AFTER_TYPE.sub("", self.type)
        return bare if all(bare.count(pair[0]) == bare.count(pair[1]) for pair in ("()", "[]", "{}")) else ""

    @property
    def default(self) -> str:
        """The default as it is written; empty if there is none."""
        found = DEFAULT.search(self.type)
        return found[1] if found else ""


@dataclass(frozen=True)
class Docstring:
    summary: str
    sections: dict[str, list[Item]]


def rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the documentation with their ids, ``module:name``.

    A name that is documented more than once, such as a property's getter and setter, is numbered from its second row.
    """
    seen = collections.Counter[str]()
    for row in read_jsonl(path):
        name = f"{row['module']}:{row['name']}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}:{seen[name]}", row


def capped(examples: list[Example]) -> list[Example]:
    """Return at most 20,000 of the examples, in hash order: test first, then validation, then training."""
    if len(examples) <= MOST_EXAMPLES:
        return examples
    return sorted(examples, key=lambda one: (SPLITS[::-1].index(one.split), hash_order(one.id)))[:MOST_EXAMPLES]


def choose(key: str, options: Sequence[Option]) -> Option:
    """Choose one of the options by a hash of the key."""
    return options[int(hash_order(key)[:8], 16) % len(options)]


def cut(text: str, length: int) -> str:
    """Cut a text after the last word that fits into ``length`` characters."""
    return text if len(text) <= length else text[: length + 1].rsplit(" ", 1)[0][:length]


def plain(text: str) -> str:
    """Return reStructuredText as one line without mark-up."""
    text = MARKUP.sub(_shown, text)
    text = re.sub(r"(?<![\w*])(\*{1,2})(\w[^*\n]*?)\1(?![\w*])", r"\2", text)
    text = re.sub(r"\s*\[\w+\]_", "", text).replace("\\*", "*").replace("\\_", "_")
    return " ".join(text.split())


def _shown(match: re.Match[str]) -> str:
    text = match["quoted"] or match["literal"]
    return text.rsplit(".", 1)[-1] if match["hidden"] == "~" else text.lstrip(".") or text


def sentences(text: str) -> list[str]:
    """Split a paragraph into sentences; a full stop after an abbreviation ends none."""
    found: list[str] = []
    for part in SENTENCE_END.split(" ".join(text.split())):
        if found and ABBREVIATION.search(found[-1]):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def parse(text: str) -> Docstring:
    """Read a docstring of the numpydoc style (https://numpydoc.readthedocs.io/en/latest/format.html).

    ``summary`` is its first sentence, or empty if that isn't made of words alone. Missing sections are empty.
    """
    lines = text.splitlines()
    starts = [n for n in range(len(lines) - 1) if lines[n].strip() and re.fullmatch(r"-{3,}\s*", lines[n + 1])]
    sections: dict[str, list[Item]] = {name: [] for name in SECTIONS}
    for start, end in itertools.pairwise([*starts, len(lines)]):
        title = lines[start].strip().title()
        if title in sections:
            sections[title] += _items(title, lines[start + 2 : end])
    opening = "\n".join(lines[: starts[0]] if starts else lines).strip().split("\n\n")[0]
    return Docstring(_summary(opening), sections)


def documented(path: Path, longest_summary: int) -> Iterator[tuple[str, Row, Docstring]]:
    """Yield id, row and docstring of classes, functions and methods that have a short summary and a section."""
    for name, row in rows(path):
        if row["kind"] in ("class", "function", "method"):
            docstring = parse(row["text"])
            if 0 < len(docstring.summary) <= longest_summary and any(docstring.sections.values()):
                yield name, row, docstring


def _summary(paragraph: str) -> str:
    first = sentences(paragraph)[0] if paragraph else ""
    text = plain(first)
    worded = re.fullmatch(r"[A-Z][^`|\n]*[^.:\s]\.", text) and ">>>" not in text and len(text.split()) > 2
    return text if worded and not MATHS.search(first) else ""


def _items(section: str, lines: list[str]) -> list[Item]:
    """Entries begin at the margin; their descriptions are indented."""
    entries = re.findall(r"^(\S.*)((?:\n(?!\S).*)*)", textwrap.dedent("\n".join(lines)), re.MULTILINE)
    return [item for header, rest in entries if (item := _item(section, header, rest[1:]))]


def _item(section: str, header: str, rest: str) -> Item | None:
    first = sentences(inspect.cleandoc(rest).split("\n\n")[0])[0] if rest.strip() else ""
    unread = MATHS.search(first) or first.startswith(("..", "- ", "* ", ">>>")) or first.endswith(":")
    description = "" if unread else plain(first)
    if MATHS.search(header) or header.endswith(":"):
        return None
    name, colon, kind = (part.strip() for part in header.partition(":"))
    if section == "Raises":
        name = plain(name)
        return Item(name, "", plain(f"{kind} {description}")) if EXCEPTION.fullmatch(name) else None
    if NAMES.fullmatch(name) and (colon or section not in ("Returns", "Yields")):
        return Item(name, plain(kind), description)
    if section in ("Returns", "Yields") and not header.startswith(("..", "-", "*", ">")):
        return Item("", plain(header), description)
    return None
