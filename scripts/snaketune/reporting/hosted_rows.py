"""Rows of the summary for runs at hosted services: what a service doesn't tell stays empty."""

from pathlib import Path
from typing import Any

from snaketune.core import files
from snaketune.evaluation.bootstrap import Resampling, percentiles
from snaketune.reporting.comparison import Results, row_statistics

BACKEND = "hosted"
Row = dict[str, Any]


def measured(run: Path, metric: str) -> Any:
    """The statistics of the primary metric, where the model was asked and the metric needs only answers."""
    path = run / f"evaluation/{BACKEND}.json"
    if not path.exists() or metric not in files.read_json(path)["metrics"]:
        return None
    return row_statistics(run, BACKEND, metric)


def row(results: Results, cell: list[Any], run: Path, untuned: Path | None) -> Row:
    """One row; its difference is from the model as it was at the same service, on the same test rows."""
    model, scenario, technique, seed = cell
    metric = results.metric[scenario]
    found: Row = {
        "model": model,
        "scenario": scenario,
        "technique": technique,
        "seed": seed,
        "backend": BACKEND,
        "metric": metric,
        "higher_is_better": str(results.recipe["scenarios"][scenario]["higher_is_better"]).lower(),
        "value": None,
    }
    statistics = measured(run, metric)
    if statistics is None:
        return found
    draws = Resampling(len(statistics), 1, results.samples)
    value, drawn = draws.values(metric, [statistics])
    low, high = percentiles(drawn, results.confidence)
    found |= {"value": value, "ci_low": low, "ci_high": high, "n": len(statistics)}
    if untuned and (before := measured(untuned, metric)) is not None:
        base, under = draws.values(metric, [before])
        low, high = percentiles(drawn - under, results.confidence)
        found |= {"base_value": base, "delta": value - base, "delta_ci_low": low, "delta_ci_high": high}
    return found


def hosted_rows(results: Results, runs: list[dict[str, Any]]) -> list[Row]:
    """A row for each run, and one for each model as it was where that was asked."""
    rows: dict[tuple[Any, ...], Row] = {}
    for one in runs:
        model, scenario, technique, seed = one["cell"]
        run = results.run(one["cell"])
        untuned = run.parent / "untuned" if one["asks_untuned"] else None
        if untuned:
            base = row(results, [model, scenario, "base", 0], untuned, None)
            rows.setdefault((model, scenario, "base", 0), base)
        resources = files.read_json(run / "resources.json")
        told = {"train_tokens": resources["train_tokens"], "train_seconds": resources["seconds"]}
        rows[model, scenario, technique, seed] = row(results, one["cell"], run, untuned) | told
    return list(rows.values())
