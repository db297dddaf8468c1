"""Infer the task of a file's rows, and its columns, from the rows."""

import collections
from typing import Any, NamedTuple

from snaketune.core.errors import UserError
from snaketune.data.formats import ALIASES, Format
from snaketune.data.normalize import get
from snaketune.data.raw_rows import Row
from snaketune.data.tasks import TASKS

# A label is short, and several rows have it; more labels than these are answers of their own.
MOST_LABELS, ROWS_PER_LABEL, LONGEST_LABEL = 50, 4, 60
# What other files call the two columns of a question and its answer.
ASKED = ("prompt", "question", "query", "input", "instruction", "user", "request")
ANSWERED = ("completion", "answer", "response", "output", "reply", "assistant")


class Guess(NamedTuple):
    """A task, the columns that differ from its usual ones, and why."""

    task: str
    columns: dict[str, str]
    reason: str


def fitting(task: str, content: dict[str, Any]) -> Format | None:
    """Return the format of a task whose keys a row has; the one with most keys."""

    def has(key: str) -> bool:
        return any(get(content, name) is not None for name in (key, ALIASES.get(key)) if name)

    return max(
        (form for form in TASKS[task].formats if all(map(has, form.keys))),
        key=lambda form: len(form.keys),
        default=None,
    )


def labels_of(rows: list[Row], column: str) -> collections.Counter[str] | None:
    """Count the labels of a column, or return None if it holds something else."""
    values = [get(row.content, column) for row in rows]
    if any(isinstance(value, bool) or not isinstance(value, str | int) for value in values):
        return None
    found = collections.Counter(str(value).strip() for value in values)
    few = 2 <= len(found) <= min(MOST_LABELS, len(rows) // ROWS_PER_LABEL)
    return found if few and max(map(len, found)) <= LONGEST_LABEL else None


def guess(rows: list[Row]) -> Guess:
    """Guess the task of rows from the keys of the first one and from the values of its columns.

    Raises:
        UserError: nothing fits.
    """
    first = rows[0].content
    whole = [(len(form.keys), task, form) for task in TASKS if task != "generation" and (form := fitting(task, first))]
    _, task, form = max(whole, key=lambda one: one[0], default=(0, "", None))
    if form and (len(form.keys) > 1 or task == "chat"):
        return Guess(task, {}, f"its rows have {' and '.join(form.keys)}")
    values = {name: [row.content.get(name) for row in rows] for name in first}
    texts = {
        name: sum(len(str(value)) for value in column)
        for name, column in values.items()
        if all(isinstance(value, str) for value in column)
    }
    labels = [name for name in first if name not in ("split", "group") and labels_of(rows, name)]
    longest = sorted(texts.keys() - set(labels), key=lambda name: -texts[name])
    if labels and longest:
        # The last column is the usual place of what is asked for.
        label = "label" if "label" in labels else labels[-1]
        columns = {key: name for key, name in (("text", longest[0]), ("label", label)) if key != name}
        return Guess("classification", columns, f"{label} has few different values, {longest[0]} is the longest text")
    asked, answered = ([name for name in texts if name.lower() in known] for known in (ASKED, ANSWERED))
    if len(asked) == len(answered) == 1:
        return Guess(
            "chat", {"prompt": asked[0], "completion": answered[0]}, f"{asked[0]} is answered by {answered[0]}"
        )
    if form or len(longest) == 1:
        text = "text" if form else longest[0]
        return Guess("language-modeling", {} if form else {"text": text}, f"{text} is its only text")
    raise UserError(
        f"{rows[0].where}: can't infer the task from the columns {', '.join(first)}: give --task, and --columns such as text={next(iter(first))}; docs/data.md lists the keys of each task"
    )
