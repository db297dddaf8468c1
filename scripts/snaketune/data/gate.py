"""The data gate: what is dropped, and whether what was counted is within the budgets."""

import collections
from typing import Any

from snaketune.config.templates import MARKUP, Example, origin
from snaketune.core.errors import UserError
from snaketune.core.hashing import hash_order
from snaketune.core.layout import SPLITS
from snaketune.data.examples import ABOUT, entity_types, parts_of, place, texts_of
from snaketune.data.findings import (
    UNITS,
    Findings,
    count_conflicts,
    count_majority,
    count_personal,
    count_shared_groups,
)
from snaketune.data.near_duplicates import Duplicates
from snaketune.data.pii import masked, personal_data
from snaketune.data.raw_rows import Faults

MINIMUM_ROWS = {"train": 8, "validation": 2, "test": 2}


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
    count_conflicts(filled, scenario["task"], findings)
    kept = select(filled, scenario, findings)
    count_personal(kept, findings)
    if scenario["task"] == "classification":
        count_majority(kept, findings)
    return kept, findings


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
        known = entity_types(example) if tagging else {example["label"]} if "label" in example else set()
        for label in sorted(known - seen):
            seen.add(label)
            if kinds := sorted({kind for kind, _ in personal_data(label)}):
                faults.add(
                    place(example),
                    f"{'entity type' if tagging else 'label'} {masked(label)!r} holds personal data ({', '.join(kinds)}); labels are shown in the report, so write it otherwise",
                )
    faults.stop()


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
        count_shared_groups(kept, leaking, scenario["task"], findings)
    findings.counts["leaks"].of = sum(example.get("given") in ("validation", "test") for example in kept)
    return kept


def _leaks(kept: Example, dropped: Example) -> bool:
    return dropped.get("given") == "train" and kept.get("given") in ("validation", "test")


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
    kind, answers = ("label", _labels) if scenario["task"] == "classification" else ("entity type", entity_types)
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
