"""Measure the published table: each claim about each column is yes, no or not measured, with evidence."""

import collections
from typing import Any

from snaketune.config.claims import COLUMNS, ROWS, STANDS_FOR, Row, claimed, differs_from, vanishes
from snaketune.core import cli, errors, files
from snaketune.core.paths import run_path
from snaketune.reporting.claim_evidence import PROPERTIES, Figure, Runs, Verdict, figure, yes
from snaketune.reporting.difference import difference
from snaketune.reporting.params import TableParams


def capability(row: Row, technique: str, comparisons: dict[str, Any]) -> Verdict:
    """Decide whether a technique beats the untuned model in each of the row's scenarios."""
    seen = {name: comparisons[name] for name in row.scenarios if name in comparisons}
    gains = {name: difference(one, technique, "base") for name, one in seen.items()}
    evidence = [
        figure(
            f"{seen[name]['scenario']}, difference from untuned",
            [gain.value, gain.low, gain.high],
            seen[name]["metric"],
            seen[name]["n"],
            "test rows",
            better=gain.verdict == "better",
            scenario=name,
            withheld=seen[name]["too_few"] or gain.withheld,
            claim=seen[name]["claim"],
            metric=f"{seen[name]['scenario']}: {seen[name]['metric']}",
            model=seen[name]["model"],
            device="; ".join(seen[name]["devices"]),
            tokens=seen[name]["tokens"][technique],
            seeds=seen[name]["seeds_of"][technique],
            runs=[
                run_path(seen[name]["model"], seen[name]["scenario"], technique, seed)
                for seed in seen[name]["seeds_of"][technique]
            ],
        )
        for name, gain in gains.items()
    ]
    few = [f"{name}: {one['too_few']}" for name, one in seen.items() if one["too_few"]]
    missing = ", ".join(name for name in row.scenarios if name not in seen)
    withheld = [f"{name}: {gain.withheld}" for name, gain in gains.items() if gain.withheld]
    if why := "; ".join(few) or (missing and f"{missing}: no scenario of this experiment") or "; ".join(withheld):
        return "not-measured", evidence, why
    return yes(all(one["better"] for one in evidence)), evidence, None


def scale(evidence: list[Figure]) -> str | None:
    """Return what decided a verdict: model, device, tokens of training and metric; None without evidence."""
    deciding = [one for one in evidence if one["decides"]]
    where = dict.fromkeys(f"{one['model']}; {one['device']}" for one in deciding)
    by = dict.fromkeys(f"{one['metric']} ({one['tokens']:,} tokens)" for one in deciding)
    return f"{' / '.join(where)}; {', '.join(by)}" if deciding else None


def cell(key: str, column: str, recipe: TableParams, comparisons: dict[str, Any], runs: Runs) -> dict[str, Any]:
    """Return one claim about one column: as published, as corrected, as measured."""
    row, technique = ROWS[key], COLUMNS[column]
    verdict: Verdict
    if technique not in recipe["techniques"]:
        verdict = "not-measured", [], f"{technique} is no technique of this experiment"
    elif key not in PROPERTIES:
        verdict = capability(row, technique, comparisons)
    elif not recipe["properties"]:
        verdict = "not-measured", [], "the experiment has no `properties`"
    else:
        verdict = PROPERTIES[key](runs, technique)
    measured, evidence, why = verdict
    return {
        "column": column,
        "technique": technique,
        **claimed(row, column),
        "measured": measured,
        "why": why,
        "evidence": evidence,
        "scale": scale(evidence),
        "expected": (recipe["expected"].get(key) or {}).get(technique),
    }


def table(recipe: TableParams, comparisons: list[dict[str, Any]], runs: Runs) -> dict[str, Any]:
    """Return every cell, the cells that contradict the published page, and the number of each verdict."""
    own = [seen for seen in comparisons if seen["model"] == recipe["model"]]
    of_model = {STANDS_FOR.get(seen["scenario"], seen["scenario"]): seen for seen in own}
    rows: list[dict[str, Any]] = []
    disagreements = []
    for key, row in ROWS.items():
        cells = [cell(key, column, recipe, of_model, runs) for column in COLUMNS]
        rows.append({"id": key, "claim": row.claim, "rule": row.rule, "cells": cells})
        disagreements += [
            {
                "row": key,
                "claim": row.claim,
                **{name: one[name] for name in ("column", "technique", "published", "corrected", "measured", "scale")},
                "differs_from": differs_from(one),
                "vanishes": f"expected to vanish with {one['expected']['model']}: {one['expected']['text']}"
                if vanishes(one)
                else None,
                "figures": [found["text"] for found in one["evidence"] if found["decides"]],
            }
            for one in cells
            if differs_from(one)
        ]
    count = collections.Counter(one["measured"] for row in rows for one in row["cells"])
    hardware = next(iter(runs.resources.values()))["hardware"] if runs.resources else None
    return {
        "model": recipe["model"],
        "confidence": recipe["confidence"],
        "columns": [{"column": column, "technique": technique} for column, technique in COLUMNS.items()],
        "scenarios": {
            seen["scenario"]: {key: seen[key] for key in ("metric", "higher_is_better", "n", "seeds", "claim")}
            for seen in own
        },
        "properties": recipe["properties"] and {**recipe["properties"], "hardware": hardware},
        "rows": rows,
        "disagreements": disagreements,
        "counts": {name: count[name] for name in ("yes", "no", "not-measured")},
    }


def main() -> None:
    arguments = cli.job_parser(__doc__, TableParams, "--results --output").parse_args()
    recipe, results = arguments.recipe, arguments.results
    found = table(recipe, files.read_json(results / "comparisons.json"), Runs.read(results, recipe))
    files.write_json(arguments.output, found)
    counts = ", ".join(f"{number} {name}" for name, number in found["counts"].items())
    print(f"{counts}; {len(found['disagreements'])} differ from the page")


if __name__ == "__main__":
    errors.run(main)
