"""Rows of the summary: a run's quality on one backend, and what its training and its export cost."""

from pathlib import Path

import numpy as np

from snaketune.core import files
from snaketune.core.tables import Row
from snaketune.evaluation import few_rows
from snaketune.evaluation.bootstrap import Resampling, percentiles
from snaketune.reporting.params import Cell, named
from snaketune.reporting.results import UNTUNED, Results, row_statistics

HOSTED = "hosted"
TRAINING = (
    *("trainable_parameters", "total_parameters", "world_size"),
    *("train_tokens", "tokens_per_second", "peak_memory_bytes"),
)


def quality(
    results: Results, cell: Cell, backend: str, statistics: np.ndarray | None, untuned: np.ndarray | None
) -> Row:
    """Return a row's key and its metric with intervals over test rows, of this seed alone.

    Args:
        statistics: of the test rows, (rows, statistics); None if the model was not evaluated.
        untuned: of the untuned model on the same rows; with it the row has a paired difference.
    """
    metric, higher = results.metric[cell[1]], results.recipe["scenarios"][cell[1]]["higher_is_better"]
    found: Row = {**named(cell), "backend": backend, "metric": metric}
    found |= {"higher_is_better": str(higher).lower(), "value": None}
    if statistics is None:
        return found
    draws = Resampling(len(statistics), results.samples)
    value, drawn = draws.values(metric, [statistics])
    low, high = few_rows.value_interval(metric, statistics, percentiles(drawn, results.confidence), results.confidence)
    found |= {"value": value, "ci_low": low, "ci_high": high, "n": len(statistics)}
    if untuned is not None:
        base, under = draws.values(metric, [untuned])
        ends = percentiles(drawn - under, results.confidence)
        low, high = few_rows.difference_interval(metric, statistics, untuned, ends, results.confidence)
        found |= {"base_value": base, "delta": value - base, "delta_ci_low": low, "delta_ci_high": high}
    return found


def local_row(results: Results, cell: Cell, backend: str) -> Row:
    """Return the row of a run that was evaluated here."""
    model, scenario, technique, _ = cell
    run, untuned = results.run(cell), technique == UNTUNED
    figures = files.read_json(run / f"evaluation/{backend}.json")
    before = None if untuned else results.statistics([model, scenario, UNTUNED, 0], backend)
    found = quality(results, cell, backend, results.statistics(cell, backend), before)
    found["artifact_bytes"] = results.artifact_bytes(cell, backend)
    found |= {name: figures[name] for name in ("decode_tokens_per_second", "latency_p50_ms")}
    if not untuned:
        resources = results.resources(cell)
        found |= {"train_seconds": resources["seconds"], **{name: resources[name] for name in TRAINING}}
    return found


def answers_of(run: Path, metric: str) -> np.ndarray | None:
    """Return the statistics of a service's answers; None if it was not asked or the metric needs more than answers."""
    path = run / f"evaluation/{HOSTED}.json"
    if not path.exists() or metric not in files.read_json(path)["metrics"]:
        return None
    return row_statistics(run, HOSTED, metric)


def hosted_rows(results: Results, runs: list[Row]) -> list[Row]:
    """Return a row for each run at a service, and one for each untuned model that was asked there.

    A difference is from the untuned model at the same service. What a service does not report stays empty.
    """
    rows: dict[tuple[str | int, ...], Row] = {}
    for one in runs:
        cell = one["cell"]
        run, metric = results.run(cell), results.metric[cell[1]]
        before = None
        if one["asks_untuned"]:
            before = answers_of(run.parent / "untuned", metric)
            base = [*cell[:2], UNTUNED, 0]
            rows.setdefault(tuple(base), quality(results, base, HOSTED, before, None))
        resources = results.resources(cell)
        spent = {"train_tokens": resources["train_tokens"], "train_seconds": resources["seconds"]}
        rows[tuple(cell)] = quality(results, cell, HOSTED, answers_of(run, metric), before) | spent
    return list(rows.values())
