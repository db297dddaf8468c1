"""The data gate: drop what would spoil a result, and check what was counted against the budgets."""

import collections
from pathlib import Path
from typing import Any

from snaketune.config.templates import MARKUP
from snaketune.core.errors import UserError
from snaketune.core.hashing import hash_order
from snaketune.core.layout import SPLITS
from snaketune.data.examples import Example
from snaketune.data.findings import (
    UNITS,
    Findings,
    count_conflicts,
    count_labels,
    count_majority,
    count_personal,
    count_shared_groups,
)
from snaketune.data.near_duplicates import Duplicates
from snaketune.data.params import ScenarioParams, origin
from snaketune.data.pii import check_regions, personal_data
from snaketune.data.raw_rows import Faults
from snaketune.data.tasks import TASKS, Task

MINIMUM_ROWS = {"train": 8, "validation": 2, "test": 2}


def filter_rows(examples: list[Example], scenario: ScenarioParams) -> tuple[list[Example], Findings]:
    """Return the rows to keep, and the findings among all rows; every example has its split.

    Raises:
        UserError: the labels of the user's own texts hold personal data.
    """
    regions = scenario.get("phone_regions", [])
    check_regions(regions)
    findings, task = Findings(regions=regions), TASKS[scenario["task"]]
    own = bool(scenario["source"]["path"])
    if own:
        _refuse_personal_labels(examples, task, findings)
    filled = _drop_empty(examples, own, task, findings)
    count_conflicts(filled, task, findings)
    count_labels(filled, task, findings)
    kept = select(filled, scenario, findings)
    count_personal(kept, task, findings)
    if task.labels_are == "label":
        count_majority(kept, findings)
    return kept, findings


def _drop_empty(examples: list[Example], own: bool, task: Task, findings: Findings) -> list[Example]:
    """Drop empty rows, and rows with tokens of chat formats where they aren't the user's ``own``, who could edit them.

    tokenize_data refuses the tokens of the model itself.
    """
    kept = []
    for example in examples:
        if not own and any(map(MARKUP.search, task.texts(example.fields))):
            findings.dropped["token of a chat format"] += 1
            continue
        findings.counts["empty"].of += 1
        if empty := task.empty(example.fields):
            findings.counts["empty"].add(f"{example.place} ({', '.join(empty)})")
            findings.dropped["empty"] += 1
        else:
            kept.append(example)
    return kept


def _refuse_personal_labels(examples: list[Example], task: Task, findings: Findings) -> None:
    """Refuse personal data in labels: the report shows them, and answers are decoded with them."""
    first, faults = dict[str, str](), Faults()
    for example in examples:
        first |= {label: example.place for label in task.labels(example.fields) if label not in first}
    for label, place in first.items():
        if kinds := sorted({kind for kind, *_ in personal_data(label, findings.regions)}):
            found = f"{task.labels_are} {findings.masked(label)!r} holds personal data ({', '.join(kinds)})"
            faults.add(place, f"{found}; labels are shown in the report, so write it otherwise")
    faults.stop()


def select(examples: list[Example], scenario: ScenarioParams, findings: Findings) -> list[Example]:
    """Return examples without duplicates, test first, up to the limits of a split, or of a label and split.

    A text that is like one already kept is dropped, so no text is in two splits. A test row leaks
    if the data themselves put a row like it in training. Rows of files with weights are drawn from those
    without duplicates and then limited, so that the weights hold for what is kept.
    """
    parts = scenario["source"]["path"] if isinstance(scenario["source"]["path"], list) else []
    weights = {str(Path(part["path"])): part["weight"] for part in parts if part["weight"]}
    task = TASKS[scenario["task"]]
    texts = Duplicates(**scenario["near_duplicates"])
    count, kept, leaking = collections.Counter[Any](), list[Example](), set[int]()
    for example in sorted(examples, key=lambda one: (SPLITS[::-1].index(one.split), hash_order(one.id))):
        if not weights and _over_limit(example, count, scenario, findings):
            continue
        findings.counts["duplicates"].of += 1
        how, numbers = texts.add(task.parts(example.fields))
        if not how:
            count.update(_counted(example))
            kept.append(example)
            continue
        held_out = [number for number in numbers if kept[number].given_split in ("validation", "test")]
        leaked = held_out if example.given_split == "train" else []
        for number in leaked:
            if number not in leaking:
                leaking.add(number)
                findings.counts["leaks"].add(f"{kept[number].place} is like {example.place}")
        if leaked:
            findings.dropped["like a row of validation or test"] += 1
        else:
            findings.counts["duplicates"].add(f"{example.place} is like {kept[numbers[0]].place}")
            findings.dropped["duplicate of a kept row" if how == "exact" else "near-duplicate of a kept row"] += 1
    if not scenario["source"]["builtin"]:
        count_shared_groups(kept, leaking, task, findings)
    findings.counts["leaks"].of = sum(example.given_split in ("validation", "test") for example in kept)
    if not weights:
        return kept
    drawn, count = draw(kept, weights), collections.Counter[Any]()
    if len(drawn) < len(kept):
        findings.dropped["over the share of its file"] = len(kept) - len(drawn)
    kept = []
    for example in drawn:
        if not _over_limit(example, count, scenario, findings):
            count.update(_counted(example))
            kept.append(example)
    return kept


def _counted(example: Example) -> list[Any]:
    """Return what an example counts for: its label and split, and its split."""
    return [(example.split, example.fields.get("label")), example.split]


def _over_limit(
    example: Example, count: collections.Counter[Any], scenario: ScenarioParams, findings: Findings
) -> bool:
    """Return whether no more rows like this one fit, given the ``count`` of those kept; it is then dropped."""
    totals, per_label, (cell, split) = scenario["rows"], scenario["rows_per_label"], _counted(example)
    over = bool((totals and count[split] >= totals[split]) or (per_label and count[cell] >= per_label[split]))
    if over:
        findings.dropped["over the number of rows" + (" per label" if per_label else "")] += 1
    return over


def draw(examples: list[Example], weights: dict[str, float]) -> list[Example]:
    """Draw rows of files in proportion to their weights, as many as there are without repeating any; keep their order.

    The order of hashes decides which, so that they are the same on every machine.
    """
    rows = {path: [one for one in examples if one.file == path] for path in weights}
    most = min(len(rows[path]) / weight for path, weight in weights.items())
    drawn = [sorted(rows[path], key=lambda one: hash_order(one.id))[: round(weights[path] * most)] for path in rows]
    chosen = {id(example) for part in drawn for example in part}
    return [example for example in examples if id(example) in chosen]


def judge(findings: Findings, scenario: ScenarioParams) -> dict[str, Any]:
    """Return {"verdict": passed | over budget, "over_budget": sentences, "not_judged": names}.

    In a built-in corpus duplicates and leaks are dropped and counted but not judged: docstrings
    do repeat one another, and the user can't change them.

    Raises:
        UserError: a share is over its budget, and the scenario says `gate: fail`.
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
            + "\n  fix the rows, or raise `budgets:` or set `gate: warn` in the scenario"
        )
    return {"verdict": "over budget" if over else "passed", "over_budget": over, "not_judged": unjudged}


def check_rows(kept: list[Example], findings: Findings, scenario: ScenarioParams) -> None:
    """Raise a UserError if the rows are too few, or lack labels in training."""
    name, task = origin(scenario["source"]), TASKS[scenario["task"]]
    for split in SPLITS:
        rows = sum(example.split == split for example in kept)
        if rows < MINIMUM_ROWS[split]:
            raise UserError(
                f"{name}: {rows} rows left for {split}, at least {MINIMUM_ROWS[split]} are needed; add rows or change `split:` in the scenario"
            )
    if not task.labels_are:
        return
    known = {label for example in kept if example.split == "train" for label in task.labels(example.fields)}
    for example in kept:
        if unseen := {*task.labels(example.fields)} - known:
            raise UserError(
                f"{example.place}: {task.labels_are} {findings.masked(min(unseen))!r} is in {example.split} but in no training row; add rows of it"
            )
    if task.labels_are == "label" and len(known) < 2:
        raise UserError(f"{name}: only one label ({findings.masked(known.pop())!r}); classification needs two or more")
    if not known:
        raise UserError(f"{name}: no entity in any training row; tagging needs one type or more")
