"""Recommend a technique: the best one; among those not told apart, the one that holds and saves the least."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snaketune.reporting.numbers import MIB
from snaketune.reporting.params import Cell
from snaketune.reporting.results import UNTUNED, Results, state_bytes

OF = {"artifact": "trained model", "technique": "technique"}


@dataclass(frozen=True)
class Cost:
    """What a technique costs: bytes follow from its recipe, seconds differ from run to run.

    Attributes:
        state: bytes of weights, gradients and optimizer states over all ranks, of the costliest seed.
        saved: bytes of the adapter or the weights that a user keeps.
        seconds: of each seed's training.
    """

    state: float
    saved: float
    seconds: tuple[float, ...]

    def slower(self, other: "Cost") -> bool:
        """Tell if every run took longer than every run of the other; a single run shows no spread."""
        return min(len(self.seconds), len(other.seconds)) > 1 and min(self.seconds) > max(other.seconds)


def costs(results: Results, trained: list[Cell]) -> dict[str, Cost]:
    """Return what each technique cost. Resident memory isn't counted: most of it is libraries, and the rest varies."""
    found: dict[str, Cost] = {}
    for technique in dict.fromkeys(cell[2] for cell in trained):
        own = [cell for cell in trained if cell[2] == technique]
        spent = [results.resources(cell) for cell in own]
        # A cost that was not measured must not win.
        state = max(sum(map(state_bytes, one["ranks"])) or math.inf for one in spent)
        saved = max(results.artifact_bytes(cell, "torch") for cell in own)
        found[technique] = Cost(state, saved, tuple(one["seconds"] or math.inf for one in spent))
    return found


def cheapest(names: list[str], cost: dict[str, Cost]) -> tuple[list[str], str]:
    """Return the techniques of the least cost, and why: by state, then by saved bytes, then by time."""
    least = min((cost[name].state, cost[name].saved) for name in names)
    equal = [name for name in names if (cost[name].state, cost[name].saved) == least]
    left = [name for name in equal if not any(cost[name].slower(cost[other]) for other in equal)]
    if math.isinf(least[0]):
        why = f"the model state of none was measured, and it saves the fewest bytes ({least[1] / MIB:,.1f} MiB)"
    elif len({cost[name].state for name in names}) > 1 or len(names) == 1:
        why = f"it holds the least weights, gradients and optimizer states over its ranks ({least[0] / MIB:,.1f} MiB)"
    else:
        why = f"all hold as much model state, and it saves the fewest bytes ({least[1] / MIB:,.1f} MiB)"
    if len(left) < len(equal):
        why += ", and every run of it was faster than those of equal size"
    if len(left) > 1:
        why += f"; nothing measured tells it apart from {', '.join(left[1:])}: a tie, of which it was named first"
    return left, why


def recommend(
    gained: list[str], quality: dict[str, float], better: Callable[[str, str], bool], cost: dict[str, Cost], claim: str
) -> dict[str, Any]:
    """Recommend the best technique; if others are not shown worse, the one of them that costs least.

    Args:
        gained: techniques that beat the untuned model; only these are recommended.
        quality: of every technique, larger is better.
        better: tells if its first technique is shown better than its second.
        claim: what is compared: the ``artifact`` in hand, of one seed, or the ``technique``.
    """
    left, equals = list[str](), list[str]()
    reason = f"no difference shown: no {OF[claim]} beats the untuned model by an interval that excludes zero"
    if gained:
        best = max(gained, key=lambda name: quality[name])
        equals = [name for name in quality if name == best or (name != UNTUNED and not better(best, name))]
        left = [best]
        reason = f"it beats the untuned model and every other {OF[claim]}, each by a paired interval that excludes zero"
    if len(equals) > 1:
        left, why = cheapest([name for name in equals if name in gained], cost)
        reason = f"no difference shown between {', '.join(equals)}; of those that beat the untuned model take {left[0]}: {why}"
    return {"recommended": left[0] if left else None, "equals": equals, "ties": left[1:], "reason": reason}
