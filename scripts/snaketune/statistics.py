"""Intervals over test rows: percentile bootstrap, paired where two systems saw the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from snaketune.metrics import classification_metrics

SEED = 20240724


def score(metric: str, labels: np.ndarray, predicted: Sequence[np.ndarray], axis: int = -1) -> Any:
    """A metric of predictions, averaged over seeds; ``labels`` and each of ``predicted``: (…, rows)."""
    if metric == "accuracy":
        return np.mean([(labels == one).mean(axis) for one in predicted], axis=0)
    return float(np.mean([classification_metrics(list(labels), list(one))[metric] for one in predicted]))


def interval(
    metric: str,
    labels: np.ndarray,
    predicted: Sequence[np.ndarray],
    against: Sequence[np.ndarray],
    samples: int,
    confidence: float,
) -> tuple[float, float, float]:
    """A metric, or its difference from ``against`` on the same rows, with its interval.

    Rows are drawn with replacement, the same ones for both sides and for every seed (paired
    percentile bootstrap: Efron and Tibshirani 1993, chapter 13).

    F1 is computed resample by resample, so of at most 1000.

    Returns:
        The value and the lower and upper end at ``confidence``.
    """
    count = len(predicted)

    def statistic(labels: np.ndarray, *answers: np.ndarray, axis: int = -1) -> Any:
        found = score(metric, labels, answers[:count], axis)
        return found - score(metric, labels, answers[count:], axis) if len(answers) > count else found

    data = (labels, *predicted, *against)
    ends = bootstrap(
        data,
        statistic,
        n_resamples=samples if metric == "accuracy" else min(samples, 1000),
        paired=True,
        vectorized=metric == "accuracy",
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
        batch=1000,
    ).confidence_interval
    return float(statistic(*data)), float(ends.low), float(ends.high)
