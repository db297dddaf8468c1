"""Compare every technique with the untuned model and with each other: two claims, kept apart.

About the artifact in hand ("this model is better on such rows") the noise of the rows is all there is, and one seed
is enough. About the technique ("LoRA is better here than DoRA") training again with another seed gives another
model, so the noise between seeds counts, and one seed shows nothing.
"""

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from snaketune.core import files
from snaketune.evaluation import few_rows
from snaketune.evaluation.bootstrap import Resampling, SeedNoise, percentiles, simultaneous
from snaketune.evaluation.metrics import value
from snaketune.reporting.difference import SILENT, Difference, too_few
from snaketune.reporting.params import Cell
from snaketune.reporting.recommend_technique import costs, recommend
from snaketune.reporting.results import UNTUNED, Results, device

# Of each technique, of each seed: (test rows, statistics). The untuned model has one.
Systems = dict[str, list[np.ndarray]]
ONE_SEED = "not decided: one seed"


@dataclass(frozen=True)
class Pair:
    """The difference a − b in a metric, and the claim that its interval makes.

    Attributes:
        claim: ``artifact`` of one seed, whose interval is over rows; ``technique`` of several, over rows and seeds.
        rows_ci_low: the lower end of the interval over rows alone, of the models in hand.
        withheld: why there is no verdict although the interval may exclude zero.
        decided_by: what would decide an open comparison, ``seeds`` or ``rows``.
    """

    a: str
    b: str
    difference: float
    ci_low: float
    ci_high: float
    claim: str
    rows_ci_low: float
    rows_ci_high: float
    withheld: str | None
    decided_by: str | None

    def told(self, in_hand: bool, higher_is_better: bool) -> Difference:
        """Return what its claim shows; ``in_hand`` also tells models of one seed apart, though not their techniques."""
        withheld = None if in_hand and self.withheld == ONE_SEED else self.withheld
        return Difference(self.difference, self.ci_low, self.ci_high, higher_is_better, withheld)


def judge(
    metric: str, systems: Systems, samples: int, confidence: float
) -> tuple[dict[str, dict[str, float]], list[Pair]]:
    """Return each system's value with its interval, and every pair; the pairs' intervals hold simultaneously.

    Every system gets the same resamples of rows, so that differences are paired.
    """
    names, rows = list(systems), len(next(iter(systems.values()))[0])
    draws = Resampling(rows, samples)
    found = [draws.values(metric, one) for one in systems.values()]
    by_seed = [[float(value(metric, one.sum(0))) for one in each] for each in systems.values()]
    noise = SeedNoise(by_seed, [name != UNTUNED for name in names], samples)
    means = [np.mean(each, axis=0) for each in systems.values()]
    values = {}
    for number, (name, (point, drawn)) in enumerate(zip(names, found, strict=True)):
        ends = percentiles(drawn + noise.errors[number] * noise.t_scale, confidence)
        low, high = few_rows.value_interval(metric, means[number], ends, confidence)
        values[name] = {"value": point, "ci_low": low, "ci_high": high}

    compared = list(itertools.combinations(range(len(names)), 2))
    first, second = (list(each) for each in zip(*compared, strict=True))
    differences = [found[a][0] - found[b][0] for a, b in compared]
    drawn_differences = [found[a][1] - found[b][1] for a, b in compared]
    errors = (noise.errors[first] - noise.errors[second]) * noise.t_scale
    spread = np.hypot(noise.spread[first], noise.spread[second])
    over_rows = simultaneous(differences, drawn_differences, confidence)
    over_seeds = simultaneous(differences, drawn_differences, confidence, errors, spread)
    bonferroni = 1 - (1 - confidence) / len(compared)
    pairs, several = [], any(len(one) > 1 for one in by_seed)
    for (a, b), point, *ends_of_both in zip(compared, differences, over_rows, over_seeds, strict=True):
        of_rows, of_seeds = (
            few_rows.difference_interval(metric, means[a], means[b], e, bonferroni) for e in ends_of_both
        )
        seeded = all(len(systems[name]) > 1 for name in (names[a], names[b]) if name != UNTUNED)
        claim, ends = ("technique", of_seeds) if seeded else ("artifact", of_rows)
        withheld, decided_by = undecided_reason(
            ends, of_rows, too_few(rows), not seeded and (several or names[a] != UNTUNED)
        )
        pairs.append(Pair(names[a], names[b], point, *ends, claim, *of_rows, withheld, decided_by))
    return values, pairs


def undecided_reason(
    ends: tuple[float, float], of_rows: tuple[float, float], few: str | None, one_seed: bool
) -> tuple[str | None, str | None]:
    """Return why a comparison has no verdict, and what would decide it: `seeds` or `rows`.

    If the rows don't tell the models in hand apart, further seeds aren't worth their cost: more rows are needed.
    """
    apart, apart_in_hand = (low > 0 or high < 0 for low, high in (ends, of_rows))
    if few:
        return few, "rows"
    if one_seed and apart_in_hand:
        return ONE_SEED, "seeds"
    if apart or ends == (0, 0):
        return None, None
    return None, "seeds" if apart_in_hand else "rows"


def compare(results: Results, model: str, scenario: str) -> dict[str, Any]:
    """Return the comparison of one model and scenario, as comparisons.json holds it."""
    cells = [cell for cell in results.recipe["cells"] if cell[:2] == [model, scenario]]
    metric, higher = results.metric[scenario], results.recipe["scenarios"][scenario]["higher_is_better"]
    seeds: dict[str, list[int]] = {}
    systems: Systems = {}
    for cell in cells:
        seeds.setdefault(cell[2], []).append(cell[3])
        systems.setdefault(cell[2], []).append(results.statistics(cell, "torch"))
    values, pairs = judge(metric, systems, results.samples, results.confidence)
    trained = [cell for cell in cells if cell[2] != UNTUNED]
    techniques = [name for name in seeds if name != UNTUNED]
    silent = {(cell[2], cell[3]) for cell in trained if results.silent(cell)}
    pairs = [
        replace(pair, withheld=SILENT, decided_by=None) if {pair.a, pair.b} & {name for name, _ in silent} else pair
        for pair in pairs
    ]
    claim = "technique" if any(len(own) > 1 for own in seeds.values()) else "artifact"
    told = {(pair.a, pair.b): pair.told(claim == "artifact", higher) for pair in pairs}
    told |= {(b, a): -one for (a, b), one in told.items()}

    def better(a: str, b: str) -> bool:
        return told[a, b].verdict == "better"

    gained = [name for name in techniques if better(name, UNTUNED)]
    quality = {name: one["value"] if higher else -one["value"] for name, one in values.items()}
    rows = len(systems[UNTUNED][0])
    spent = [(cell[2], results.resources(cell)) for cell in trained]
    return {
        "model": model,
        "scenario": scenario,
        "metric": metric,
        "higher_is_better": higher,
        "n": rows,
        "too_few": too_few(rows),
        "claim": claim,
        "seeds": sorted({cell[3] for cell in trained}),
        "seeds_of": {name: seeds[name] for name in techniques},
        "tokens": {name: max(one["train_tokens"] or 0 for own, one in spent if own == name) for name in techniques},
        "devices": sorted({device(one["hardware"]) for _, one in spent}),
        "values": values,
        "pairs": [asdict(pair) for pair in pairs],
        "artifacts": [
            {**one, "withheld": SILENT if (one["technique"], one["seed"]) in silent else None}
            for one in artifacts(results, metric, systems, seeds, pairs)
        ],
        "undecided": {by: [[pair.a, pair.b] for pair in pairs if pair.decided_by == by] for by in ("seeds", "rows")},
        "not_better_than_base": [name for name in techniques if name not in gained],
        "chosen_on_validation": chosen_on_validation(results, trained, gained),
        **recommend(gained, quality, better, costs(results, trained), claim),
    }


def artifacts(
    results: Results, metric: str, systems: Systems, seeds: dict[str, list[int]], pairs: list[Pair]
) -> list[dict[str, Any]]:
    """Return each model's difference from the untuned one, over rows alone; the intervals hold simultaneously.

    With one seed they are those of the pairs, so that no model is told better in one place and not in another.
    """
    cells = [(name, number) for name in seeds if name != UNTUNED for number in range(len(seeds[name]))]
    if all(pair.claim == "artifact" for pair in pairs):
        against = {pair.b: pair for pair in pairs if pair.a == UNTUNED}
        points = [0 - against[name].difference for name, _ in cells]
        ends = [(0 - against[name].rows_ci_high, 0 - against[name].rows_ci_low) for name, _ in cells]
    else:
        draws = Resampling(len(systems[UNTUNED][0]), results.samples)
        untuned, under = draws.values(metric, systems[UNTUNED])
        found = [draws.values(metric, [systems[name][number]]) for name, number in cells]
        points = [point - untuned for point, _ in found]
        over_rows = simultaneous(points, [drawn - under for _, drawn in found], results.confidence)
        each = 1 - (1 - results.confidence) / len(cells)
        ends = [
            few_rows.difference_interval(metric, systems[name][number], systems[UNTUNED][0], both, each)
            for (name, number), both in zip(cells, over_rows, strict=True)
        ]
    return [
        {"technique": name, "seed": seeds[name][number], "difference": point, "ci_low": low, "ci_high": high}
        for (name, number), point, (low, high) in zip(cells, points, ends, strict=True)
    ]


def chosen_on_validation(results: Results, trained: list[Cell], gained: list[str]) -> dict[str, Any]:
    """Return the technique with the lowest final validation loss, averaged over seeds: chosen without test rows."""
    losses: dict[str, list[float]] = {}
    for cell in trained:
        curve = files.read_jsonl(results.run(cell) / "train.jsonl")
        losses.setdefault(cell[2], []).append([e["validation_loss"] for e in curve if "validation_loss" in e][-1])
    means = {name: float(np.mean(found)) for name, found in losses.items()}
    best = min(means, key=lambda name: means[name])
    return {"technique": best, "validation_losses": means, "better_than_base": best in gained}
