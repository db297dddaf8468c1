"""Intervals where a bootstrap shows too little: rows that all agree, and few rows in which two systems differ."""

import math
from statistics import NormalDist

import numpy as np
from scipy.stats import permutation_test

from snaketune.evaluation.metrics import VALUES, value

# Measured on pairs of equal systems: at a nominal 5 %, a bootstrap calls 10 % of them different on 5 rows, 7.5 % on 10,
# and no more than it should from here on.
ENOUGH = 20
# The rule of thumb for the normal approximation to a share.
FEW_HITS = 5
PERMUTATIONS = 4096
Ends = tuple[float, float]


def is_share(metric: str, statistics: np.ndarray) -> bool:
    """Tell if a metric is a mean of rows that score from 0 to 1: accuracy, or the F1 of answers."""
    if metric in VALUES or statistics.shape[1] != 2 or (statistics[:, 1] != 1).any():
        return False
    return bool(statistics[:, 0].min() >= 0 and statistics[:, 0].max() <= 1)


def wilson(share: float, rows: int, confidence: float) -> Ends:
    """Return Wilson's score interval of a share (1927); fractional scores vary less, so this is conservative."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, reach = share + z**2 / (2 * rows), z * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return max(0.0, (middle - reach) / (1 + z**2 / rows)), min(1.0, (middle + reach) / (1 + z**2 / rows))


def value_interval(metric: str, statistics: np.ndarray, ends: Ends, confidence: float) -> Ends:
    """Return the interval of one system's metric: Wilson's where nearly all rows are right, or nearly all wrong.

    ``statistics``, (rows, statistics), are averaged over seeds; ``ends`` are the bootstrap's.
    """
    if not is_share(metric, statistics):
        return ends
    hits, rows = float(statistics[:, 0].sum()), len(statistics)
    if min(hits, rows - hits) >= FEW_HITS:
        return ends
    low, high = wilson(hits / rows, rows, confidence)
    return min(low, ends[0]), max(high, ends[1])


def difference_interval(metric: str, one: np.ndarray, other: np.ndarray, ends: Ends, confidence: float) -> Ends:
    """Return the interval of one − other; it excludes zero only if an exact test does so too.

    Rows without any spread give an interval by Wilson's of both shares (Newcombe 1998, Statistics in Medicine 17,
    2635, method 10 without correlation). Where fewer than 20 rows differ, the interval is extended to zero unless
    a permutation test, which swaps the systems in each of these rows, finds the difference. The statistics of both
    systems, (rows, statistics), are averaged over seeds; ``ends`` are the bootstrap's.
    """
    low, high = ends
    if low == high != 0 and is_share(metric, one) and is_share(metric, other):
        (a, b), rows = (float(system[:, 0].mean()) for system in (one, other)), len(one)
        (a_low, a_high), (b_low, b_high) = wilson(a, rows, confidence), wilson(b, rows, confidence)
        low, high = a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
    differ = np.flatnonzero((one != other).any(axis=1))
    if 0 < len(differ) < ENOUGH and (low > 0 or high < 0) and permutation_p_value(metric, one, other) > 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def permutation_p_value(metric: str, one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of a paired permutation test: exact where all swaps of the rows that differ are few."""
    differ = (one != other).any(axis=1)
    both, same = np.concatenate([one[differ], other[differ]]), one[~differ].sum(0)
    count = int(differ.sum())

    def difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        a, b = (value(metric, same + np.take(both, rows.astype(int), axis=0).sum(axis - 1)) for rows in (x, y))
        return np.asarray(a - b)

    found = permutation_test(
        (np.arange(count), np.arange(count, 2 * count)),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
