"""Questions on docstrings in the numpydoc style, answered by a span of the passage: the built-in corpus of qa."""

import collections
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snaketune.core.hashing import hash_order
from snaketune.corpora.docstrings import Docstring, Item, Row, capped, choose, documented
from snaketune.data.examples import Example

LONGEST_ANSWER = 60
LONGEST_SUMMARY = 120
LONGEST_DESCRIPTION = 80
PHRASES = {
    "summary": ["What does {name} do?", "What is the purpose of {name}?"],
    "class": ["What is {name}?", "What is the purpose of {name}?"],
    "type": ["What is the type of {item}?", "Of what type is {item}?", "What type must {item} have?"],
    "default": ["What is the default of {item}?", "Which value does {item} have by default?"],
    "meaning": ["What is {item}?", "What is {item} for?", "What does {item} mean?"],
    "returns": ["What does {name} return?", "What is returned?"],
    "raises": ["Which exception does it raise?", "Which exception can {name} raise?"],
    "condition": ["When does it raise {item}?", "In which case is {item} raised?"],
}


class Question(NamedTuple):
    kind: str
    item: str
    answer: str


class Shown(NamedTuple):
    """An item of a section as a passage shows it: with its description, or with none."""

    section: str
    item: Item
    text: str
    description: str


def header(section: str, item: Item) -> str:
    if section == "Raises" or not item.type:
        return item.name
    return f"{item.name} : {item.type}" if item.name else item.type


def passage(name: str, docstring: Docstring, length: int) -> tuple[str, list[Shown]]:
    """Return the summary and the items that fit: first what is returned and raised, then the parameters."""
    first_line = f"{name}: {docstring.summary}"
    sections = ("Parameters", "Returns", "Raises")
    order = [(section, item) for section in ("Returns", "Raises", "Parameters") for item in docstring.sections[section]]
    kept: dict[str, list[Shown]] = {section: [] for section in sections}
    left = length - len(first_line)
    for section, item in order:
        line, more = header(section, item), item.description
        ways = [Shown(section, item, f"{line}\n  {more}", more)] if 0 < len(more) <= LONGEST_DESCRIPTION else []
        for shown in [*ways, Shown(section, item, line, "")]:
            needed = len(shown.text) + 1 + (0 if kept[section] else len(section) + 1)
            if line and needed <= left:
                left -= needed
                kept[section].append(shown)
                break
    lines = [line for name in sections if kept[name] for line in (name, *(shown.text for shown in kept[name]))]
    return "\n".join([first_line, *lines]), [shown for section in sections for shown in kept[section]]


def questions(docstring: Docstring, shown: list[Shown]) -> Iterator[Question]:
    """Yield the questions that the passage answers; an answer may be empty, or too long to be asked for."""
    yield Question("summary", "", docstring.summary.removesuffix("."))
    count = collections.Counter(one.section for one in shown)
    for section, item, _, description in shown:
        if section == "Raises":
            if count[section] == 1:
                yield Question("raises", "", item.name)
            if description.lower().startswith(("if ", "when ")):
                yield Question("condition", item.name, description.removesuffix("."))
        elif section == "Returns" and count[section] == len(docstring.sections[section]) == 1:
            yield Question("returns", "", item.bare_type)
        elif section == "Parameters" and re.fullmatch(r"\w+", item.name):
            yield Question("type", item.name, item.bare_type)
            yield Question("meaning", item.name, description.removesuffix("."))
            yield Question("default", item.name, item.default)


def examples(corpus: Path, *, max_characters: int) -> list[Example]:
    """Return one or two questions on each docstring, of the kinds asked least so far.

    Each answer is a span of the context of at most 60 characters.

    Args:
        max_characters: longest passage.
    """
    kinds, answers = collections.Counter[tuple[str, str]](), collections.Counter[tuple[str, str]]()
    found: list[Example] = []
    for name, row, docstring in sorted(documented(corpus, LONGEST_SUMMARY), key=lambda one: hash_order(one[0])):
        context, shown = passage(row["name"].split(".")[-1], docstring, max_characters)
        asked = [one for one in questions(docstring, shown) if 0 < len(one.answer) <= LONGEST_ANSWER]
        possible = [one for one in asked if one.answer in context and one.answer != "Ignored"]
        # Among questions of one kind the one with the rarest answer, or most defaults would be None.
        possible.sort(key=lambda one: (answers[one.kind, one.answer], hash_order(f"{name}{one.item}")))
        of_kind = {one.kind: one for one in reversed(possible)}
        rarest = sorted(of_kind.values(), key=lambda one: (kinds[row["split"], one.kind], one.kind))
        for one in rarest[: choose(name, [1, 2])]:
            kinds[row["split"], one.kind] += 1
            answers[one.kind, one.answer] += 1
            found.append(example(name, row, context, one))
    return capped(sorted(found, key=lambda one: one.id))


def example(name: str, row: Row, context: str, question: Question) -> Example:
    of_class = question.kind == "summary" and row["kind"] == "class"
    asked = choose(f"{name}{question.kind}{question.item}", PHRASES["class" if of_class else question.kind])
    fields = {
        "context": context,
        "question": asked.format(name=row["name"].split(".")[-1], item=question.item),
        "answers": [question.answer],
    }
    return Example(f"{name}#{question.kind}", fields, row["group"], row["split"])
