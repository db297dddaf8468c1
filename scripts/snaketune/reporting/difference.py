"""The difference of one metric between two systems, and what may be said of it."""

from dataclasses import dataclass
from typing import Any

from snaketune.evaluation.few_rows import ENOUGH

NOT_SHOWN = "no difference shown"
SILENT = "not decided: every answer is empty"


@dataclass(frozen=True)
class Difference:
    """A metric of a minus that of b, with the ends of its interval; ``withheld`` is why no verdict is given."""

    value: float
    low: float
    high: float
    higher_is_better: bool
    withheld: str | None = None

    def __neg__(self) -> "Difference":
        # 0 - x, because -x would write a difference of 0 as -0.
        return Difference(0 - self.value, 0 - self.high, 0 - self.low, self.higher_is_better, self.withheld)

    @property
    def verdict(self) -> str:
        """Return why there is none; `better` or `worse`, said of a; or, if the interval includes zero, that."""
        if self.withheld:
            return self.withheld
        if self.low > 0 or self.high < 0:
            return "better" if (self.low > 0) == self.higher_is_better else "worse"
        return NOT_SHOWN


def too_few(rows: int) -> str | None:
    """Return why no verdict may rest on so few test rows, or None."""
    return f"not decided: {rows} of the {ENOUGH} test rows that a verdict takes" if rows < ENOUGH else None


def difference(comparison: dict[str, Any], a: str, b: str) -> Difference:
    """Return a − b from an entry of comparisons.json, which holds each pair of techniques once."""
    pair = next(pair for pair in comparison["pairs"] if {pair["a"], pair["b"]} == {a, b})
    ends = (pair["difference"], pair["ci_low"], pair["ci_high"])
    found = Difference(*ends, comparison["higher_is_better"], pair["withheld"])
    return found if pair["a"] == a else -found


def artifact(comparison: dict[str, Any], technique: str, seed: int) -> Difference:
    """Return one model's difference from the untuned one, over test rows alone, from an entry of comparisons.json."""
    one = next(one for one in comparison["artifacts"] if (one["technique"], one["seed"]) == (technique, seed))
    ends = (one["difference"], one["ci_low"], one["ci_high"])
    return Difference(*ends, comparison["higher_is_better"], one["withheld"] or comparison["too_few"])
