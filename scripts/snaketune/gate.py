"""The data gate: what is dropped, what is counted, and whether it is within the budgets."""

import collections
import statistics
from dataclasses import dataclass, field
from typing import Any

from snaketune.duplicates import Duplicates
from snaketune.errors import UserError
from snaketune.layout import SPLITS
from snaketune.order import hash_order
from snaketune.personal import KINDS, masked, personal_data
from snaketune.reading import Faults
from snaketune.shapes import default_group
from snaketune.sources import MARKUP, Example, origin

PLACES = 5
# Of an example; all else are the fields of its task.
ABOUT = ("id", "where", "group", "split", "given")
MINIMUM_ROWS = {"train": 8, "validation": 2, "test": 2}
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


def sift(examples: list[Example], scenario: dict[str, Any]) -> tuple[list[Example], Findings]:
    """The rows to keep, and what was found among all: every example has its split.

    Raises:
        UserError: the user's own texts hold the special tokens of chat templates, or their labels
            personal data.
    """
    findings = Findings()
    if scenario["source"]["path"]:
        _refuse_personal_labels(examples)
    clean = _without_markup(examples, scenario, findings)
    filled = _without_empty(clean, scenario["task"], findings)
    _count_conflicts(filled, scenario["task"], findings)
    kept = select(filled, scenario, findings)
    _count_personal(kept, findings)
    if scenario["task"] == "classification":
        labels = collections.Counter(example["label"] for example in kept if example["split"] == "test")
        findings.counts["majority"].of = labels.total()
        for label, rows in labels.most_common(1):
            findings.counts["majority"].rows, findings.counts["majority"].places = rows, [repr(masked(label))]
    return kept, findings


def texts_of(example: Example) -> list[str]:
    """All that a model would read or write."""
    found = []
    for key, value in example.items():
        if key == "messages":
            found += [message["content"] for message in value]
        elif key in ("tokens", "tags"):
            found.append(" ".join(value))
        elif key not in ABOUT:
            found += value if isinstance(value, list) else [value]
    return found


def parts_of(task: str, example: Example) -> tuple[str, ...]:
    """The texts by which rows are duplicates of one another, each like the other's.

    Many questions may be about one passage, so the question and its answer are a part of their own.
    One name may be the same in two languages, so the language is a part of its own.
    Many conversations may begin with one system message, so it doesn't count.
    """
    if task == "tagging":
        return (" ".join(example["tokens"]),)
    if task == "translation":
        return (f"{example['source']} {example['target']}", example.get("language", ""))
    if task == "qa":
        return (f"{example['question']} {next(iter(example['answers']), '')}", example["context"])
    if task == "chat":
        return ("\n".join(m["content"] for m in example["messages"] if m["role"] != "system"),)
    return (example["completion" if task == "generation" else "text"],)


def place(example: Example) -> str:
    return str(example.get("where", example["id"]))


def _without_markup(examples: list[Example], scenario: dict[str, Any], findings: Findings) -> list[Example]:
    """Only the user's own files can be mended: elsewhere such rows are dropped."""
    kept, faults = [], Faults()
    for example in examples:
        match = next((match for text in texts_of(example) if (match := MARKUP.search(text))), None)
        if match is None:
            kept.append(example)
        elif scenario["source"]["path"]:
            faults.add(
                place(example),
                f"the text holds {match[0]!r}, which tokenizers take for a token of the chat format; write it otherwise",
            )
        else:
            findings.dropped["token of a chat format"] += 1
    faults.stop()
    return kept


def _without_empty(examples: list[Example], task: str, findings: Findings) -> list[Example]:
    needed = {"generation": ("prompt", "completion"), "translation": ("source", "target")}.get(task)
    kept = []
    for example in examples:
        fields = needed or [key for key in example if key not in ABOUT]
        if missing := [name for key in fields for name in _empty(key, example[key])]:
            findings.counts["empty"].add(f"{place(example)} ({', '.join(missing)})")
            findings.dropped["empty"] += 1
        else:
            kept.append(example)
    findings.counts["empty"].of = len(examples)
    return kept


def _empty(key: str, value: Any) -> list[str]:
    """What is empty of a field: its name, or the roles of messages without content."""
    if key == "messages":
        return [message["role"] for message in value if not message["content"].strip()]
    return [] if value else [key]


def _refuse_personal_labels(examples: list[Example]) -> None:
    """Labels are shown as they are, as answers are decoded with them, so none may hold personal data."""
    seen, faults = set[str](), Faults()
    for example in examples:
        tagging = "tags" in example
        known = _entity_types(example) if tagging else {example["label"]} if "label" in example else set()
        for label in sorted(known - seen):
            seen.add(label)
            if kinds := sorted({kind for kind, _ in personal_data(label)}):
                faults.add(
                    place(example),
                    f"{'entity type' if tagging else 'label'} {masked(label)!r} holds personal data ({', '.join(kinds)}); labels are shown in the report, so write it otherwise",
                )
    faults.stop()


def _question_and_answer(task: str, example: Example) -> tuple[Any, Any]:
    if task == "classification":
        return example["text"].lower(), example["label"]
    if task == "tagging":
        return tuple(example["tokens"]), tuple(example["tags"])
    if task == "qa":
        return (example["question"], example["context"]), tuple(sorted(example["answers"]))
    return None, None


def _count_conflicts(examples: list[Example], task: str, findings: Findings) -> None:
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


def select(examples: list[Example], scenario: dict[str, Any], findings: Findings) -> list[Example]:
    """Examples without duplicates, test first, then at most so many of a split, or of a label and split.

    A text that is like one already kept is dropped, so none crosses splits. A test row leaks
    where the data themselves put a row like it in training.
    """
    limits, by_label = scenario["rows_per_label"] or scenario["rows"], bool(scenario["rows_per_label"])
    totals = scenario["rows"] if by_label else None
    texts = Duplicates(**scenario["near_duplicates"])
    count: collections.Counter[Any] = collections.Counter()
    kept: list[Example] = []
    leaking: set[int] = set()
    for example in sorted(
        examples, key=lambda example: (SPLITS[::-1].index(example["split"]), hash_order(example["id"]))
    ):
        split = example["split"]
        cell = (split, example["label"] if by_label else "")
        if (limits and count[cell] >= limits[split]) or (totals and count[split] >= totals[split]):
            findings.dropped["over the number of rows" + (" per label" if by_label else "")] += 1
            continue
        findings.counts["duplicates"].of += 1
        how, numbers = texts.add(parts_of(scenario["task"], example))
        if not how:
            count.update([cell, split])
            kept.append(example)
            continue
        leaked = [number for number in numbers if _leaks(kept[number], example)]
        for number in leaked:
            if number not in leaking:
                leaking.add(number)
                findings.counts["leaks"].add(f"{place(kept[number])} is like {place(example)}")
        if leaked:
            findings.dropped["like a row of validation or test"] += 1
        else:
            findings.counts["duplicates"].add(f"{place(example)} is like {place(kept[numbers[0]])}")
            findings.dropped["duplicate of a kept row" if how == "exact" else "near-duplicate of a kept row"] += 1
    if not scenario["source"]["builtin"]:
        _count_shared_groups(kept, leaking, scenario["task"], findings)
    findings.counts["leaks"].of = sum(example.get("given") in ("validation", "test") for example in kept)
    return kept


def _count_shared_groups(kept: list[Example], leaking: set[int], task: str, findings: Findings) -> None:
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


def _leaks(kept: Example, dropped: Example) -> bool:
    return dropped.get("given") == "train" and kept.get("given") in ("validation", "test")


def _count_personal(examples: list[Example], findings: Findings) -> None:
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


def judge(findings: Findings, scenario: dict[str, Any]) -> dict[str, Any]:
    """The verdict: {"verdict": passed | over budget, "over_budget": sentences, "not_judged": names}.

    In a built-in corpus duplicates and leaks are dropped and counted but not judged: nobody
    has put them there, and docstrings do repeat one another.

    Raises:
        UserError: a figure is over its budget, and the scenario says `gate: fail`.
    """
    unjudged = ["duplicates", "leaks"] if scenario["source"]["builtin"] else []
    over = []
    for name in (name for name in UNITS if name not in unjudged):
        count, budget = findings.counts[name], scenario["budgets"][name]
        if count.share > budget:
            places = "; ".join(count.places) + (" and more" if count.rows > len(count.places) > 1 else "")
            over.append(
                f"{name}: {count.rows} of {count.of} {UNITS[name]} ({count.share:.2%}, budget {budget:.2%}): {places}"
            )
    if over and scenario["gate"] == "fail":
        raise UserError(
            "\n  ".join([f"{origin(scenario['source'])}: over budget; nothing was written", *over])
            + "\n  mend the rows, or raise `budgets:` or set `gate: warn` in the scenario"
        )
    return {"verdict": "over budget" if over else "passed", "over_budget": over, "not_judged": unjudged}


def check_rows(kept: list[Example], scenario: dict[str, Any]) -> None:
    """Raise a UserError where the rows can't make the scenario."""
    name = origin(scenario["source"])
    for split in SPLITS:
        rows = sum(example["split"] == split for example in kept)
        if rows < MINIMUM_ROWS[split]:
            raise UserError(
                f"{name}: {rows} rows left for {split}, at least {MINIMUM_ROWS[split]} are needed; add rows or change `split:` in the scenario"
            )
    kind, answers = ("label", _labels) if scenario["task"] == "classification" else ("entity type", _entity_types)
    if scenario["task"] not in ("classification", "tagging"):
        return
    known = set().union(*(answers(example) for example in kept if example["split"] == "train"))
    for example in kept:
        if unseen := answers(example) - known:
            raise UserError(
                f"{place(example)}: {kind} {masked(min(unseen))!r} is in {example['split']} but in no training row; add rows of it"
            )
    if kind == "label" and len(known) < 2:
        raise UserError(f"{name}: only one label ({masked(known.pop())!r}); classification needs two or more")
    if not known:
        raise UserError(f"{name}: no entity in any training row; tagging needs one type or more")


def _labels(example: Example) -> set[str]:
    return {example["label"]}


def _entity_types(example: Example) -> set[str]:
    return {tag[2:] for tag in example["tags"] if tag != "O"}


def lengths(texts: list[str]) -> dict[str, float]:
    """Shortest, median and longest length in characters."""
    found = [len(text) for text in texts]
    return {"shortest": min(found), "median": statistics.median(found), "longest": max(found)}
