"""The difference of one metric between two systems, and what its interval shows."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """A metric of a minus that of b, with the ends of its interval."""

    value: float
    low: float
    high: float
    higher_is_better: bool

    def __neg__(self) -> "Difference":
        # 0 - x, because -x would write a difference of 0 as -0.
        return Difference(0 - self.value, 0 - self.high, 0 - self.low, self.higher_is_better)

    @property
    def verdict(self) -> str:
        """Return `better` or `worse`, said of a, or `no difference shown` if the interval includes zero."""
        if self.low > 0 or self.high < 0:
            return "better" if (self.low > 0) == self.higher_is_better else "worse"
        return "no difference shown"


def difference(comparison: dict[str, Any], a: str, b: str) -> Difference:
    """Return a − b from an entry of comparisons.json, which holds each pair of techniques once."""
    pair = next(pair for pair in comparison["pairs"] if {pair["a"], pair["b"]} == {a, b})
    found = Difference(pair["difference"], pair["ci_low"], pair["ci_high"], comparison["higher_is_better"])
    return found if pair["a"] == a else -found
