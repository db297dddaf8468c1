"""Intervals over test rows and seeds: percentile bootstrap, paired where systems saw the same rows."""

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


def seed_weights(seeds: int, samples: int) -> np.ndarray:
    """Return each seed's share of each resample: (samples, seeds), spread so that the mean of few seeds varies enough."""
    random = np.random.default_rng([SEED, 1])
    shares = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    return 1 / seeds + (shares - 1 / seeds) * (seeds / max(1, seeds - 1)) ** 0.5


class Resampling:
    """Draws the same rows and seeds for every system, so that differences are paired.

    Rows and seeds are crossed, each drawn with replacement (the pigeonhole bootstrap of Owen
    2007, Annals of Applied Statistics 1(2)). With one seed it is the percentile bootstrap of
    rows (Efron and Tibshirani 1993, chapter 13). Where the spread between three seeds outweighs
    that between rows, a 95 % interval covers some 89 %: percentiles of so few are too narrow.
    """

    def __init__(self, rows: int, seeds: int, samples: int):
        self.rows, self.seeds = row_draws(rows, samples), seed_weights(seeds, samples)

    def values(self, metric: str, statistics: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
        """Return a metric averaged over seeds, and the same for each resample.

        Args:
            metric: its name.
            statistics: of each seed, (rows, statistics); one for a system without seeds.

        Returns:
            The value, and an array of shape (samples,).
        """
        drawn = np.stack([self._drawn(metric, one) for one in statistics], axis=-1)
        weights = self.seeds if len(statistics) == self.seeds.shape[1] else np.ones((1, 1))
        return float(np.mean([value(metric, one.sum(0)) for one in statistics])), (drawn * weights).sum(-1)

    def _drawn(self, metric: str, statistics: np.ndarray) -> np.ndarray:
        return np.asarray(value(metric, row_sums(self.rows, statistics)))


def percentiles(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return both ends of a percentile interval."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def simultaneous(values: Sequence[float], drawn: Sequence[np.ndarray], confidence: float) -> list[tuple[float, float]]:
    """Intervals that all hold together at ``confidence``: single-step max-t (Westfall and Young 1993).

    Args:
        values: one for each comparison.
        drawn: the resamples of each, (samples,), of the same draws.

    A comparison without any spread keeps its value as both ends.
    """
    # Equal systems differ by the rounding of sums: no spread, and no difference either.
    rounding = 1e-12 * np.maximum(1, np.abs(drawn).max(1))
    centre = np.where(np.abs(values) < rounding, 0, values)
    spread = np.where(np.std(drawn, axis=1) > rounding, np.std(drawn, axis=1), 0)
    scaled = np.divide(
        np.abs(np.asarray(drawn).T - centre), spread, out=np.zeros((len(drawn[0]), len(values))), where=spread > 0
    )
    reach = np.quantile(scaled.max(1), confidence) * spread
    return [(float(low), float(high)) for low, high in zip(centre - reach, centre + reach, strict=True)]
