"""What short runs of equal work show of a technique: cost, memory, parameters, sharing over ranks."""

import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from snaketune.config.claims import REFERENCE
from snaketune.core import files
from snaketune.core.paths import property_path
from snaketune.reporting.numbers import MIB

STATES = ("weight", "gradient", "optimizer")
Figure = dict[str, Any]
# What a cell is found to be, the figures that show it, and why it isn't measured.
Verdict = tuple[str, list[Figure], str | None]
Resources = dict[str, Any]


def figure(name: str, values: list[float], unit: str, n: int, of: str, **found: Any) -> Figure:
    """One measured figure; ``values`` holds it and the ends of its interval, where it has one.

    ``decides`` tells the figures that a verdict rests on from those that only explain it.
    """
    low_high = f" [{values[1]:.3g}, {values[2]:.3g}]" if len(values) == 3 else ""
    return {
        "name": name,
        "figure": values[0],
        "unit": unit,
        "interval": values[1:] or None,
        "n": n,
        "of": of,
        "decides": True,
        "text": f"{name}: {values[0]:.3g}{low_high} {unit}, n = {n} {of}",
        **found,
    }


class Runs:
    """The short runs of the properties, by technique, ranks and round."""

    def __init__(self, results: Path, recipe: dict[str, Any]):
        self.recipe = recipe
        self.seeds = recipe["properties"]["seeds"] if recipe["properties"] else []
        self.found: dict[tuple[str, int, int], Resources] = {
            (technique, ranks, number): files.read_json(
                results / property_path(technique, ranks, number) / "resources.json"
            )
            for technique, ranks, number in recipe["property_runs"]
        }

    def rounds(self, technique: str) -> list[Resources]:
        """At the technique's own number of ranks."""
        own = self.recipe["ranks"][technique]
        return [self.found[technique, own, n + 1] for n in range(self.recipe["properties"]["rounds"])]

    def names(self, technique: str) -> list[str]:
        own = self.recipe["ranks"]
        return [
            property_path(name, own[name], n + 1)
            for name in dict.fromkeys((technique, REFERENCE))
            for n in range(self.recipe["properties"]["rounds"])
        ]

    def against_full(
        self, name: str, technique: str, of: Callable[[Resources], float], decides: bool = False
    ) -> Figure:
        """The ratio of a figure to full's of the same round: the median over rounds, the least and the greatest."""
        mine, full = ([of(one) for one in self.rounds(each)] for each in (technique, REFERENCE))
        ratios = [a / b for a, b in zip(mine, full, strict=True)]
        values = [statistics.median(ratios), min(ratios), max(ratios)]
        own = {
            "decides": decides,
            "seeds": self.seeds,
            "value": statistics.median(mine),
            "value_of_full": statistics.median(full),
        }
        return figure(name, values, "× full", len(ratios), "rounds", runs=self.names(technique), **own)


def core_seconds(one: Resources) -> float:
    """Occupied for each token."""
    return float(one["seconds"] * one["world_size"] * one["threads_per_rank"] / one["train_tokens"])


def beyond_imports(one: Resources) -> float:
    """Bytes of the rank that grew most."""
    return float(max(rank["peak_memory_bytes"] - rank["imported_memory_bytes"] for rank in one["ranks"]))


def state(one: Resources, kinds: tuple[str, ...] = STATES) -> int:
    """Bytes of weights, gradients and optimizer states of the rank that holds most of all three, or some of them."""
    largest = max(one["ranks"], key=lambda rank: sum(rank[f"{kind}_bytes"] for kind in STATES))
    return int(sum(largest[f"{kind}_bytes"] for kind in kinds))


def elsewhere(runs: Runs, technique: str) -> str | None:
    """Why runs can't be compared, where full's were made on another machine: restored, or made before a move."""
    machines = [one["hardware"] for name in (technique, REFERENCE) for one in runs.rounds(name)]
    if all(one == machines[0] for one in machines):
        return None
    return f"its runs and {REFERENCE}'s were made on different machines: delete results/properties and run again"


def yes(found: bool) -> str:
    return "yes" if found else "no"


def cost(runs: Runs, technique: str) -> Verdict:
    occupied = runs.against_full("core-seconds per token", technique, core_seconds, True)
    others = [
        runs.against_full("tokens per second", technique, lambda one: one["tokens_per_second"]),
        runs.against_full("processor seconds of rank 0", technique, lambda one: one["cpu_seconds_of_rank_0"]),
    ]
    if reason := elsewhere(runs, technique):
        return "not-measured", [occupied, *others], reason
    return yes(occupied["interval"][1] < 1), [occupied, *others], None


def memory(runs: Runs, technique: str) -> Verdict:
    peak = runs.against_full("peak of a rank beyond imports", technique, beyond_imports, True)
    held = runs.against_full("weights + gradients + optimizer states of a rank", technique, state, True)
    evidence = [peak, held]
    evidence += [
        runs.against_full(f"{kind} bytes of that rank", technique, partial(state, kinds=(kind,))) for kind in STATES
    ]
    evidence.append(runs.against_full("whole peak of a rank", technique, lambda one: one["peak_memory_bytes"]))
    if reason := elsewhere(runs, technique):
        return "not-measured", evidence, reason
    if technique in runs.recipe["offloaded"] and not runs.rounds(technique)[0]["hardware"]["gpu"]:
        reason = "it offloads its optimizer from the GPU to the host, and no GPU was there to be relieved; the figures are the host's"
        return "not-measured", evidence, reason
    return yes(all(one["interval"][1] < 1 for one in (peak, held))), evidence, None


def parameters(runs: Runs, technique: str) -> Verdict:
    mine, full = (runs.rounds(name)[0] for name in (technique, REFERENCE))
    share = mine["trainable_parameters"] / mine["total_parameters"]
    text = f"parameters trained: {mine['trainable_parameters']:,} of {mine['total_parameters']:,} ({100 * share:.3g} %)"
    values = {
        "seeds": runs.seeds,
        "value": mine["trainable_parameters"],
        "value_of_full": full["trainable_parameters"],
        "text": text,
    }
    found = figure("share of the parameters trained", [share], "of all", 1, "run", runs=runs.names(technique), **values)
    return yes(mine["trainable_parameters"] < full["trainable_parameters"]), [found], None


def aggregate(runs: Runs, technique: str) -> Verdict:
    ranks = runs.recipe["properties"]["ranks"]
    held = {count: state(runs.found[technique, count, 1]) for count in ranks}
    evidence = [
        figure(
            f"state of a rank from {a} to {b} ranks ({held[a] / MIB:,.0f} to {held[b] / MIB:,.0f} MiB)",
            [held[b] / held[a]],
            "× before",
            1,
            "run",
            runs=[property_path(technique, count, 1) for count in (a, b)],
            seeds=runs.seeds,
            value=held[b],
            value_before=held[a],
        )
        for a, b in pairwise(ranks)
    ]
    return yes(all(held[b] < held[a] for a, b in pairwise(ranks))), evidence, None


PROPERTIES = {"cost": cost, "memory": memory, "parameters": parameters, "aggregate": aggregate}
