"""Intervals over test rows, paired where systems saw the same rows, and over the noise of training."""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from snaketune.evaluation.metrics import value

SEED = 20240724
BLOCK = 500


@lru_cache(2)
def row_draws(rows: int, samples: int) -> np.ndarray:
    """Return how often each row is drawn in each resample: (samples, rows)."""
    random = np.random.default_rng([SEED, 0])
    drawn = np.empty((samples, rows), dtype=np.uint16)
    for start in range(0, samples, BLOCK):
        block = drawn[start : start + BLOCK]
        block[:] = random.multinomial(rows, np.full(rows, 1 / rows), size=len(block))
    return drawn


def row_sums(draws: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the sum over each resample, (samples, …): `draws` from `row_draws`, values (rows, …)."""
    blocks = range(0, len(draws), BLOCK)
    return np.concatenate([draws[start : start + BLOCK].astype(np.float64) @ values for start in blocks])


class Resampling:
    """Draws the same rows for every system, so that differences are paired: the percentile bootstrap.

    Efron and Tibshirani (1993), chapter 13.
    """

    def __init__(self, rows: int, samples: int):
        self.rows = row_draws(rows, samples)

    def values(self, metric: str, statistics: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
        """Return a metric averaged over seeds, and the same for each resample of the rows, (samples,).

        There is one array of statistics, (rows, statistics), for each seed, or one for a system without seeds.
        """
        drawn = np.stack([np.asarray(value(metric, row_sums(self.rows, one))) for one in statistics])
        return float(np.mean([value(metric, one.sum(0)) for one in statistics])), drawn.mean(0)


class SeedNoise:
    """What training noise leaves in the mean over seeds of each system, by the variance pooled over systems.

    With few seeds a system's own variance is a poor estimate; pooled, each error follows Student's t with the sum of
    the systems' degrees of freedom, all of them with the same estimate of the variance.

    Attributes:
        spread: of a system's mean, the standard deviation, (systems,).
        errors: its draws, normal with that spread, (systems, samples).
        t_scale: what makes them Student's t, (samples,): the variance is estimated.
    """

    def __init__(self, values: Sequence[Sequence[float]], seeded: Sequence[bool], samples: int):
        """Pool the variance of each system's values over seeds; one that isn't ``seeded`` was never trained."""
        random = np.random.default_rng([SEED, 1])
        trained = list(itertools.compress(values, seeded))
        degrees = sum(len(one) - 1 for one in trained)
        squares = sum(len(one) * float(np.var(one)) for one in trained)
        shares = np.array(seeded) / [len(one) for one in values]
        self.spread = np.sqrt(squares / max(1, degrees) * shares)
        self.errors = random.normal(size=(len(values), samples)) * self.spread[:, None]
        self.t_scale = np.sqrt(degrees / random.chisquare(degrees, samples)) if degrees else np.ones(samples)


def percentiles(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return both ends of a percentile interval."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def simultaneous(
    values: Sequence[float],
    drawn: Sequence[np.ndarray],
    confidence: float,
    noise: np.ndarray | float = 0.0,
    noise_spread: np.ndarray | float = 0.0,
) -> list[tuple[float, float]]:
    """Intervals that all hold together at ``confidence``: single-step max-t (Westfall and Young 1993).

    Args:
        values: one for each comparison.
        drawn: the resamples of each, (samples,), of the same draws.
        noise: draws of what training noise adds to each, (comparisons, samples), and its ``noise_spread``,
            (comparisons,). Where it outweighs the rows, these are Tukey's intervals (1949).

    A comparison without any spread keeps its value as both ends.
    """
    # Equal systems differ by the rounding of sums: no spread, and no difference either.
    rounding = 1e-12 * np.maximum(1, np.abs(drawn).max(1))
    centre = np.where(np.abs(values) < rounding, 0, values)
    spread = np.hypot(np.std(drawn, axis=1), noise_spread)
    spread = np.where(spread > rounding, spread, 0)
    away = np.abs((np.asarray(drawn) - centre[:, None]) + noise).T
    scaled = np.divide(away, spread, out=np.zeros(away.shape), where=spread > 0)
    reach = np.quantile(scaled.max(1), confidence) * spread
    return [(float(low), float(high)) for low, high in zip(centre - reach, centre + reach, strict=True)]
