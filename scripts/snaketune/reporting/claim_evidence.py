"""Measure a technique's cost, memory, parameters and sharing over ranks on short runs of equal work."""

import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from snaketune.config.claims import REFERENCE
from snaketune.core import files
from snaketune.core.paths import property_path
from snaketune.reporting.numbers import MIB
from snaketune.reporting.params import TableParams
from snaketune.reporting.results import STATES, device, state_bytes

Figure = dict[str, Any]
# yes, no or not-measured; the figures that show it; the reason if it is not measured.
Verdict = tuple[str, list[Figure], str | None]
Resources = dict[str, Any]
# Technique, ranks and round of a short run.
Key = tuple[str, int, int]


def figure(name: str, values: list[float], unit: str, n: int, of: str, **more: Any) -> Figure:
    """Return one measured figure as the technique table writes it.

    Args:
        values: the figure, and the ends of its interval if it has one.
        n: the number of observations, and ``of`` what they are.
        more: further keys; ``decides=False`` marks a figure that explains a verdict without deciding it.
    """
    low_high = f" [{values[1]:.3g}, {values[2]:.3g}]" if len(values) == 3 and n > 1 else ""
    return {
        **{"name": name, "figure": values[0], "unit": unit, "interval": values[1:] or None, "n": n, "of": of},
        **{"decides": True, "metric": name, "text": f"{name}: {values[0]:.3g}{low_high} {unit}, n = {n} {of}"},
        **more,
    }


class Runs:
    """The short runs that measure properties, by technique, ranks and round."""

    def __init__(self, recipe: TableParams, resources: dict[Key, Resources]):
        self.recipe, self.resources = recipe, resources
        self.properties: dict[str, Any] = recipe["properties"] or {}

    @classmethod
    def read(cls, results: Path, recipe: TableParams) -> Self:
        """Read the runs that a recipe names."""
        runs: list[Key] = [(technique, ranks, number) for technique, ranks, number in recipe["property_runs"]]
        return cls(recipe, {run: files.read_json(results / property_path(*run) / "resources.json") for run in runs})

    def keys(self, technique: str) -> list[tuple[str, int, int]]:
        """Return the runs of every round with the technique's own number of ranks."""
        return [(technique, self.recipe["ranks"][technique], n + 1) for n in range(self.properties["rounds"])]

    def rounds(self, technique: str) -> list[Resources]:
        return [self.resources[key] for key in self.keys(technique)]

    def about(self, technique: str, keys: list[tuple[str, int, int]] | None = None) -> dict[str, Any]:
        """Return with which model, machine, tokens and seeds a technique was measured, and in which runs.

        They are those of every round, with the reference's, unless their ``keys`` are given.
        """
        runs, own = self.rounds(technique), self.recipe["ranks"][technique]
        ranks = f", {own} ranks" if own > 1 else ""
        keys = keys or [key for name in dict.fromkeys((technique, REFERENCE)) for key in self.keys(name)]
        return {
            "model": self.properties["model"],
            "device": "; ".join(sorted({device(run["hardware"]) for run in runs})) + ranks,
            "tokens": max(run["train_tokens"] for run in runs),
            "seeds": self.properties.get("seeds", []),
            "runs": [property_path(*key) for key in keys],
        }

    def against_full(
        self,
        name: str,
        technique: str,
        measure: Callable[[Resources], float],
        decides: bool = False,
        of_full: Callable[[Resources], float] | None = None,
    ) -> Figure:
        """Return the ratio of a figure to full's in the same round: its median, least and greatest over rounds.

        ``of_full`` is the figure of full, if it is another.
        """
        mine = [measure(run) for run in self.rounds(technique)]
        full = [(of_full or measure)(run) for run in self.rounds(REFERENCE)]
        ratios = [a / b for a, b in zip(mine, full, strict=True)]
        values = [statistics.median(ratios), min(ratios), max(ratios)]
        own = {"value": statistics.median(mine), "value_of_full": statistics.median(full), "decides": decides}
        return figure(
            name, values, "× full", len(ratios), "rounds" if len(ratios) > 1 else "run", **own, **self.about(technique)
        )

    def incomparable(self, technique: str) -> str | None:
        """Return why a technique can't be compared with full, or None: restored runs may be of another machine."""
        machines = [run["hardware"] for name in (technique, REFERENCE) for run in self.rounds(name)]
        if all(machine == machines[0] for machine in machines):
            return None
        return f"its runs and {REFERENCE}'s were made on different machines: delete results/properties and run again"


def core_seconds(run: Resources) -> float:
    """Return the core-seconds that training occupied per token."""
    return float(run["seconds"] * run["world_size"] * run["threads_per_rank"] / run["train_tokens"])


def beyond_imports(run: Resources) -> float:
    """Return the largest growth of a rank's memory after its imports, in bytes."""
    return float(max(rank["peak_memory_bytes"] - rank["imported_memory_bytes"] for rank in run["ranks"]))


def state(run: Resources, kinds: tuple[str, ...] = STATES) -> int:
    """Return the bytes of weights, gradients and optimizer states, or some of them, of the rank that holds most."""
    largest = max(run["ranks"], key=state_bytes)
    return sum(int(largest[f"{kind}_bytes"]) for kind in kinds)


def yes(shown: bool) -> str:
    return "yes" if shown else "no"


def cost(runs: Runs, technique: str) -> Verdict:
    evidence = [
        runs.against_full("core-seconds per token", technique, core_seconds, True),
        runs.against_full("tokens per second", technique, lambda run: run["tokens_per_second"]),
        runs.against_full("processor seconds of rank 0", technique, lambda run: run["cpu_seconds_of_rank_0"]),
    ]
    if reason := runs.incomparable(technique):
        return "not-measured", evidence, reason
    return yes(evidence[0]["interval"][1] < 1), evidence, None


def memory(runs: Runs, technique: str) -> Verdict:
    of_kinds = {f"{kind} bytes of that rank": partial(state, kinds=(kind,)) for kind in STATES}
    evidence = [
        runs.against_full("peak of a rank beyond imports", technique, beyond_imports, True),
        runs.against_full("weights + gradients + optimizer states of a rank", technique, state, True),
        *(runs.against_full(name, technique, measure) for name, measure in of_kinds.items()),
        runs.against_full("whole peak of a rank", technique, lambda run: run["peak_memory_bytes"]),
    ]
    if reason := runs.incomparable(technique):
        return "not-measured", evidence, reason
    if technique in runs.recipe["offloaded"] and not runs.rounds(technique)[0]["hardware"]["gpu"]:
        # Without a GPU, all is on the host; which states would stay on a GPU follows from the engine.
        for one in evidence:
            one["decides"] = False
        stays = partial(state, kinds=("weight", "gradient"))
        name = "weights + gradients of a rank, which stay on a GPU, to full's states"
        evidence.insert(0, runs.against_full(name, technique, stays, True, of_full=state))
    deciding = [one for one in evidence if one["decides"]]
    return yes(all(one["interval"][1] < 1 for one in deciding)), evidence, None


def parameters(runs: Runs, technique: str) -> Verdict:
    mine, full = (runs.rounds(name)[0] for name in (technique, REFERENCE))
    trained, total = mine["trainable_parameters"], mine["total_parameters"]
    own = {
        "value": trained,
        "value_of_full": full["trainable_parameters"],
        "text": f"parameters trained: {trained:,} of {total:,} ({100 * trained / total:.3g} %)",
    }
    name = "share of the parameters trained"
    evidence = figure(name, [trained / total], "of all", 1, "run", **own, **runs.about(technique))
    return yes(trained < full["trainable_parameters"]), [evidence], None


def aggregate(runs: Runs, technique: str) -> Verdict:
    counts = runs.properties["ranks"]
    if len(counts) < 2:
        return "not-measured", [], "one number of ranks shows no sharing"
    held = {count: state(runs.resources[technique, count, 1]) for count in counts}
    evidence = []
    for a, b in pairwise(held):
        name = f"state of a rank from {a} to {b} ranks ({held[a] / MIB:,.0f} to {held[b] / MIB:,.0f} MiB)"
        own = {"value": held[b], "value_before": held[a], "metric": "state of a rank"}
        about = runs.about(technique, [(technique, count, 1) for count in (a, b)])
        evidence.append(figure(name, [held[b] / held[a]], "× before", 1, "run", **own, **about))
    return yes(all(b < a for a, b in pairwise(held.values()))), evidence, None


PROPERTIES = {"cost": cost, "memory": memory, "parameters": parameters, "aggregate": aggregate}
