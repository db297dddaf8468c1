"""Compare every technique with the untuned model and with each other, over test rows and seeds."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.core import files
from snaketune.core.paths import run_path
from snaketune.evaluation.bootstrap import Resampling, percentiles, simultaneous
from snaketune.reporting.difference import Difference
from snaketune.reporting.numbers import MIB
from snaketune.reporting.params import Cell, SummaryParams


class Results:
    """The measured files of an experiment. A cell is [model, scenario, technique, seed]."""

    def __init__(self, root: Path, recipe: SummaryParams):
        self.root, self.recipe = root, recipe
        self.metric = {name: scenario["primary_metric"] for name, scenario in recipe["scenarios"].items()}
        self.samples, self.confidence = recipe["bootstrap_samples"], recipe["confidence"]

    def run(self, cell: Cell) -> Path:
        return self.root / run_path(*cell)

    def statistics(self, cell: Cell, backend: str) -> np.ndarray:
        """Return the statistics of the scenario's primary metric, (test rows, statistics)."""
        return row_statistics(self.run(cell), backend, self.metric[cell[1]])

    def resources(self, cell: Cell) -> Any:
        return files.read_json(self.run(cell) / "resources.json")


def row_statistics(run: Path, backend: str, metric: str) -> np.ndarray:
    """Return what each test row adds to a metric, (test rows, statistics)."""
    rows = files.read_jsonl(run / f"evaluation/{backend}.predictions.jsonl")
    return np.array([row["statistics"][metric] for row in rows], dtype=np.float64)


def resampled(results: Results, cells: list[Cell]) -> dict[str, tuple[float, np.ndarray]]:
    """Return each technique's metric over its seeds with torch, and its value in each resample.

    Every technique gets the same resamples, so that differences are paired.
    """
    metric = results.metric[cells[0][1]]
    found = {
        name: [results.statistics(cell, "torch") for cell in cells if cell[2] == name]
        for name in dict.fromkeys(cell[2] for cell in cells)
    }
    seeds = max(len(one) for one in found.values())
    draws = Resampling(len(found["base"][0]), seeds, results.samples)
    return {name: draws.values(metric, one) for name, one in found.items()}


def compare(results: Results, model: str, scenario: str) -> dict[str, Any]:
    """Return the comparison of one model and scenario; its intervals of differences hold simultaneously."""
    cells = [cell for cell in results.recipe["cells"] if cell[:2] == [model, scenario]]
    found = resampled(results, cells)
    higher = results.recipe["scenarios"][scenario]["higher_is_better"]
    names = list(itertools.combinations(found, 2))
    differences = [found[a][0] - found[b][0] for a, b in names]
    ends = simultaneous(differences, [found[a][1] - found[b][1] for a, b in names], results.confidence)
    pairs = {
        pair: Difference(value, low, high, higher)
        for pair, value, (low, high) in zip(names, differences, ends, strict=True)
    }
    pairs |= {(b, a): -one for (a, b), one in pairs.items()}

    def better(a: str, b: str) -> bool:
        return pairs[a, b].verdict == "better"

    gained = [name for name in found if name != "base" and better(name, "base")]
    values = {}
    for name, (value, drawn) in found.items():
        low, high = percentiles(drawn, results.confidence)
        values[name] = {"value": value, "ci_low": low, "ci_high": high}
    quality = {name: value if higher else -value for name, (value, _) in found.items()}
    return {
        "model": model,
        "scenario": scenario,
        "metric": results.metric[scenario],
        "higher_is_better": higher,
        "n": len(results.statistics(cells[0], "torch")),
        "seeds": sorted({cell[3] for cell in cells if cell[2] != "base"}),
        "values": values,
        "pairs": [
            {"a": a, "b": b, "difference": pairs[a, b].value, "ci_low": pairs[a, b].low, "ci_high": pairs[a, b].high}
            for a, b in names
        ],
        "not_better_than_base": [name for name in found if name != "base" and name not in gained],
        "chosen_on_validation": chosen_on_validation(results, cells, gained),
        **recommend(gained, quality, better, cost(results, cells)),
    }


def chosen_on_validation(results: Results, cells: list[Cell], gained: list[str]) -> dict[str, Any]:
    """Return the technique with the lowest final validation loss, averaged over seeds: chosen without test rows."""
    losses: dict[str, list[float]] = {}
    for cell in cells:
        if cell[2] != "base":
            curve = files.read_jsonl(results.run(cell) / "train.jsonl")
            losses.setdefault(cell[2], []).append([e["validation_loss"] for e in curve if "validation_loss" in e][-1])
    means = {name: float(np.mean(found)) for name, found in losses.items()}
    best = min(means, key=lambda name: means[name])
    return {"technique": best, "validation_losses": means, "better_than_base": best in gained}


def cost(results: Results, cells: list[Cell]) -> dict[str, tuple[float, float]]:
    """Return each technique's peak memory in bytes, over all ranks, and seconds, both of its costliest seed."""
    found: dict[str, tuple[float, float]] = {}
    for cell in cells:
        if cell[2] != "base":
            resources = results.resources(cell)
            # A cost that was not measured must not win.
            peak, seconds = (resources[key] or math.inf for key in ("peak_memory_bytes", "seconds"))
            mine = (peak * resources["world_size"], seconds)
            found[cell[2]] = max(found.get(cell[2], (0, 0.0)), mine)
    return found


def recommend(
    gained: list[str], quality: dict[str, float], better: Any, cost: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """Recommend the best technique; if others are not shown worse, the one of them with the least memory.

    Args:
        gained: techniques that beat the untuned model; only these are recommended.
        quality: of every technique, larger is better.
        better: tells if its first technique is shown better than its second.
        cost: peak memory and seconds; ties in memory go to the faster one.
    """
    if not gained:
        return {
            "recommended": None,
            "equals": [],
            "reason": "no difference shown: no technique beats the untuned model by an interval that excludes zero",
        }
    best = max(gained, key=lambda name: quality[name])
    equals = [name for name in quality if name == best or (name != "base" and not better(best, name))]
    chosen = min((name for name in equals if name in gained), key=lambda name: cost[name])
    if len(equals) == 1:
        return {
            "recommended": best,
            "equals": equals,
            "reason": "it beats the untuned model and every other technique, each by a paired interval that excludes zero",
        }
    peak = cost[chosen][0]
    least = (
        f"it has the smallest peak memory over its ranks ({peak / MIB:,.0f} MiB)"
        if math.isfinite(peak)
        else "it was named first, as the memory of none was measured"
    )
    return {
        "recommended": chosen,
        "equals": equals,
        "reason": f"no difference shown between {', '.join(equals)}; of those that beat the untuned model {least}",
    }
