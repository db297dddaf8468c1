"""The counts of the data gate: rows with a finding, out of how many, and the places of the first."""

import collections
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from snaketune.data.examples import Example
from snaketune.data.pii import KINDS, masked, personal_data
from snaketune.data.tasks import Task
from snaketune.data.words import label_key

PLACES = 5
UNITS = {
    "duplicates": "rows are like another that is kept",
    "leaks": "validation and test rows are like a training row, or share its group",
    "empty": "rows are empty",
    "personal": "rows hold personal data or secrets",
    "majority": "test rows have the commonest label",
    "labels": "rows have a label that differs from another by spaces, invisible characters or its normal form only",
}


@dataclass
class Count:
    """Rows with a finding, out of how many, and the places of the first."""

    rows: int = 0
    of: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.rows += 1
        if len(self.places) < PLACES:
            self.places.append(place)

    @property
    def share(self) -> float:
        return self.rows / self.of if self.of else 0.0

    def figures(self) -> dict[str, Any]:
        return {"rows": self.rows, "of": self.of, "share": round(self.share, 6), "places": self.places}


@dataclass
class Findings:
    """Everything that the gate counts between the rows read and the rows kept."""

    counts: dict[str, Count] = field(default_factory=lambda: {name: Count() for name in UNITS})
    dropped: collections.Counter[str] = field(default_factory=collections.Counter)
    conflicts: Count = field(default_factory=Count)
    personal: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    regions: Sequence[str] = ()

    def masked(self, text: str) -> str:
        return masked(text, self.regions)

    def figures(self) -> dict[str, Any]:
        return {
            **{name: count.figures() for name, count in self.counts.items()},
            "conflicting_answers": self.conflicts.figures(),
            "personal_data": {kind: count.figures() for kind, count in self.personal.items()},
        }


def count_conflicts(examples: list[Example], task: Task, findings: Findings) -> None:
    """Count the rows whose question has another answer in an earlier row."""
    first: dict[Any, tuple[Any, Example]] = {}
    findings.conflicts.of = len(examples)
    for example in examples:
        question, answer = task.question_and_answer(example.fields)
        if question is None:
            continue
        other, before = first.setdefault(question, (answer, example))
        if other != answer:
            shown = f" ({findings.masked(other)!r}, {findings.masked(answer)!r})" if task.labels_are == "label" else ""
            findings.conflicts.add(f"{example.place} and {before.place}{shown}")


def count_shared_groups(kept: list[Example], leaking: set[int], task: Task, findings: Findings) -> None:
    """Count the rows, not yet in ``leaking``, whose group the data put in training as well.

    Only groups that the data name count: rows with the same text or passage are a group by default.
    """
    grouped = [
        (n, one) for n, one in enumerate(kept) if one.given_split and one.group != task.default_group(one.fields)
    ]
    trained = {example.group: example for _, example in reversed(grouped) if example.given_split == "train"}
    for number, example in grouped:
        if example.given_split != "train" and example.group in trained and number not in leaking:
            shared = f"shares group {findings.masked(example.group)!r} with {trained[example.group].place}"
            findings.counts["leaks"].add(f"{example.place} {shared}")


def count_personal(examples: list[Example], task: Task, findings: Findings) -> None:
    for count in (findings.counts["personal"], *findings.personal.values()):
        count.of = len(examples)
    for example in examples:
        found: dict[str, str] = {}
        for text in task.texts(example.fields):
            for kind, _, shown in personal_data(text, findings.regions):
                found.setdefault(kind, shown)
        for kind, shown in found.items():
            findings.personal[kind].add(f"{example.place} ({shown})")
        if found:
            findings.counts["personal"].add(f"{example.place} ({', '.join(f'{k} {m}' for k, m in found.items())})")


def count_majority(examples: list[Example], findings: Findings) -> None:
    labels = collections.Counter(example.fields["label"] for example in examples if example.split == "test")
    findings.counts["majority"].of = labels.total()
    for label, rows in labels.most_common(1):
        findings.counts["majority"].rows, findings.counts["majority"].places = rows, [repr(findings.masked(label))]


def count_labels(examples: list[Example], task: Task, findings: Findings) -> None:
    """Count the rows whose label looks like another that is more common: a model would learn two."""
    rows = [(example, {*task.labels(example.fields)}) for example in examples]
    count = collections.Counter(label for _, labels in rows for label in labels)
    findings.counts["labels"].of = len(rows) if count else 0
    # The commonest comes last, and stays.
    usual = {label_key(label): label for label in sorted(sorted(count, reverse=True), key=count.__getitem__)}
    for example, labels in rows:
        if odd := sorted(label for label in labels if usual[label_key(label)] != label):
            pair = (findings.masked(odd[0]), findings.masked(usual[label_key(odd[0])]))
            alike = len({unicodedata.normalize("NFKC", repr(one)) for one in pair}) == 1
            shown, like = map(ascii if alike else repr, pair)
            findings.counts["labels"].add(f"{example.place} ({shown}, like {like})")
