"""Compare a form of a model with its parent, with an interval for each figure, and check the budgets."""

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from snaketune.evaluation.bootstrap import Resampling, percentiles, row_draws, row_sums
from snaketune.evaluation.metrics import quality_change
from snaketune.inference.decoding import log_softmax

# In float64, all positions of a large vocabulary would take gigabytes.
POSITIONS_AT_ONCE = 64


@np.errstate(invalid="ignore")
def compare_logits(
    parent: np.ndarray, child: np.ndarray, positions: Sequence[int], samples: int, confidence: float
) -> dict[str, Any]:
    """Return logit differences, greedy agreement and KL divergence over the probe.

    Logits are (all positions, vocabulary); ``positions`` are how many of them each row has.

    Returns:
        ``kl_divergence`` is the mean over positions of KL(parent || child), in nats; ``*_ci`` are
        both ends of the percentile bootstrap of ``samples`` draws of rows. Where logits aren't
        finite, neither is ``largest_logit_difference``, and greedy tokens don't agree.
    """
    largest = difference = 0.0
    agreed, divergence = np.zeros(len(parent)), np.zeros(len(parent))
    for start in range(0, len(parent), POSITIONS_AT_ONCE):
        part = slice(start, start + POSITIONS_AT_ONCE)
        distance = np.abs(parent[part].astype(np.float64) - child[part])
        p, q = log_softmax(parent[part]), log_softmax(child[part])
        divergence[part] = (np.exp(p) * (p - q)).sum(-1)
        # Unlike max(), this keeps a NaN.
        largest = float(np.maximum(largest, distance.max()))
        difference += float(distance.mean(-1).sum())
        # The argmax of a row with a NaN is the place of the NaN, which may be the right token.
        agreed[part] = (parent[part].argmax(-1) == child[part].argmax(-1)) & np.isfinite(distance).all(-1)
    starts = np.cumsum([0, *positions[:-1]])
    drawn = row_draws(len(positions), samples)
    found: dict[str, Any] = {
        "positions": len(parent),
        "rows": len(positions),
        "largest_logit_difference": largest,
        "mean_logit_difference": difference / len(parent),
    }
    for name, values in (("greedy_agreement", agreed), ("kl_divergence", divergence)):
        sums = np.add.reduceat(values, starts)
        means = row_sums(drawn, sums) / row_sums(drawn, np.asarray(positions, dtype=np.float64))
        found[name], found[f"{name}_ci"] = float(values.mean()), list(percentiles(means, confidence))
    return found


def compare_answers(
    metric: str, parent: list[dict[str, Any]], child: list[dict[str, Any]], samples: int, confidence: float
) -> dict[str, Any]:
    """Return the change of perplexity and of a metric from the parent's predictions to the child's, paired by row.

    Returns:
        ``perplexity_change`` is log(perplexity of the child / of the parent): 0.01 is about 1 % more;
        ``metric_change`` is that of `quality_change`, positive where the child is better.
    """
    tokens = np.array([row["answer_tokens"] for row in parent], dtype=np.float64)
    before, after = (np.array([row["nll"] for row in rows], dtype=np.float64) for rows in (parent, child))
    draws = Resampling(len(parent), samples)
    lost = row_sums(draws.rows, after - before) / row_sums(draws.rows, tokens)
    one, other = (
        draws.values(metric, [np.array([row["statistics"][metric] for row in rows], dtype=np.float64)])
        for rows in (parent, child)
    )
    changes = [quality_change(metric, a, b) for a, b in zip(one[1].tolist(), other[1].tolist(), strict=True)]
    return {
        "n": len(parent),
        "answer_tokens": int(tokens.sum()),
        "perplexity_change": float((after - before).sum() / tokens.sum()),
        "perplexity_change_ci": list(percentiles(lost, confidence)),
        "metric_change": quality_change(metric, one[0], other[0]),
        "metric_change_ci": list(percentiles(np.array(changes), confidence)),
    }


def broken(found: dict[str, Any]) -> bool:
    """Return true if a logit of parent or child isn't finite: no budget allows for that."""
    return not math.isfinite(found["largest_logit_difference"])


def without_nan(found: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity, which JSON lacks, with None."""
    return json.loads(json.dumps(found), parse_constant=lambda constant: None)


def over_budget(step: str, found: dict[str, Any], budget: dict[str, float]) -> list[str]:
    """Return a line for each figure of a conversion step over its budget; NaN is over it, a missing figure isn't."""
    wrong = []
    for key, limit in budget.items():
        name, least = key.removeprefix("smallest_"), key.startswith("smallest_")
        if name in found and not (found[name] >= limit if least else found[name] <= limit):
            wrong.append(f"{step}: {name} is {found[name]:.3g}, expected at {'least' if least else 'most'} {limit:g}")
    return wrong


def what_passes(steps: dict[str, Any], failed: Collection[str]) -> str:
    """Return a sentence on what each failed export of a run costs, and which of its other precisions are within budget.

    Args:
        failed: steps over their budget or without one.
    """

    def cost(step: str) -> str:
        found, name = steps[step], step.removeprefix("onnx-fp32-")
        return f"{name} ({found['metric_change']:+.3f} at {found['share_of_fp32_bytes']:.2f} of the fp32 bytes)"

    # No export can be closer to the trained model than the form that it was exported from.
    exports = (
        [] if {"adapter-merged", "merged-onnx-fp32"} & {*failed} else [s for s in steps if s.startswith("onnx-fp32-")]
    )
    over = [cost(step) for step in exports if step in failed]
    if not over:
        return ""
    kept = [cost(step) for step in sorted(exports, key=lambda one: steps[one]["bytes"]) if step not in failed]
    names = "; ".join(kept) or "none; list `auto` in `precisions`, which looks for the smallest within a budget"
    return f"Change of the metric: {'; '.join(over)}. Within their budget: {names}."
