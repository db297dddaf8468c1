"""What the data gate counts: rows with a finding, of how many, and where the first of them are."""

import collections
from dataclasses import dataclass, field
from typing import Any

from snaketune.config.templates import Example
from snaketune.data.examples import default_group, place, texts_of
from snaketune.data.pii import KINDS, masked, personal_data

PLACES = 5
UNITS = {
    "duplicates": "rows are like another that is kept",
    "leaks": "validation and test rows are like a training row, or share its group",
    "empty": "rows are empty",
    "personal": "rows hold personal data or secrets",
    "majority": "test rows have the commonest label",
}


@dataclass
class Count:
    """Rows with a finding, of how many, and where the first of them are."""

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
    """What the gate saw on its way from the rows read to the rows kept."""

    counts: dict[str, Count] = field(default_factory=lambda: {name: Count() for name in UNITS})
    dropped: collections.Counter[str] = field(default_factory=collections.Counter)
    conflicts: Count = field(default_factory=Count)
    personal: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})

    def figures(self) -> dict[str, Any]:
        return {
            **{name: count.figures() for name, count in self.counts.items()},
            "conflicting_answers": self.conflicts.figures(),
            "personal_data": {kind: count.figures() for kind, count in self.personal.items()},
        }


def _question_and_answer(task: str, example: Example) -> tuple[Any, Any]:
    if task == "classification":
        return example["text"].lower(), example["label"]
    if task == "tagging":
        return tuple(example["tokens"]), tuple(example["tags"])
    if task == "qa":
        return (example["question"], example["context"]), tuple(sorted(example["answers"]))
    return None, None


def count_conflicts(examples: list[Example], task: str, findings: Findings) -> None:
    """Rows whose text has another answer elsewhere; where many answers are right, none conflict."""
    first: dict[Any, tuple[Any, Example]] = {}
    findings.conflicts.of = len(examples)
    for example in examples:
        key, answer = _question_and_answer(task, example)
        if key is None:
            continue
        other, before = first.setdefault(key, (answer, example))
        if other != answer:
            found = f" ({masked(before['label'])!r}, {masked(answer)!r})" if task == "classification" else ""
            findings.conflicts.add(f"{place(example)} and {place(before)}{found}")


def count_shared_groups(kept: list[Example], leaking: set[int], task: str, findings: Findings) -> None:
    """A row leaks, if it isn't among ``leaking`` yet, where the data put its group in training as well.

    Only groups that the data give count; else rows of one text or passage are a group.
    """
    own = [(n, one) for n, one in enumerate(kept) if "given" in one and one["group"] != default_group(task, one)]
    trained: dict[str, Example] = {}
    for _, one in own:
        if one["given"] == "train":
            trained.setdefault(one["group"], one)
    for number, one in own:
        if one["given"] != "train" and one["group"] in trained and number not in leaking:
            other = place(trained[one["group"]])
            findings.counts["leaks"].add(f"{place(one)} shares group {masked(one['group'])!r} with {other}")


def count_personal(examples: list[Example], findings: Findings) -> None:
    for count in (findings.counts["personal"], *findings.personal.values()):
        count.of = len(examples)
    for example in examples:
        found: dict[str, str] = {}
        for text in texts_of(example):
            for kind, shown in personal_data(text):
                found.setdefault(kind, shown)
        for kind, shown in found.items():
            findings.personal[kind].add(f"{place(example)} ({shown})")
        if found:
            findings.counts["personal"].add(f"{place(example)} ({', '.join(f'{k} {m}' for k, m in found.items())})")


def count_majority(examples: list[Example], findings: Findings) -> None:
    labels = collections.Counter(example["label"] for example in examples if example["split"] == "test")
    findings.counts["majority"].of = labels.total()
    for label, rows in labels.most_common(1):
        findings.counts["majority"].rows, findings.counts["majority"].places = rows, [repr(masked(label))]
