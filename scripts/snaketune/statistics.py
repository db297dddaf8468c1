"""Intervals over test rows and seeds: percentile bootstrap, paired where systems saw the same rows."""

from collections.abc import Sequence

import numpy as np

from snaketune.metrics import value

SEED = 20240724


class Resampling:
    """The same draws of rows and of seeds for every system, so that differences are paired.

    Rows and seeds are crossed, each drawn with replacement (the pigeonhole bootstrap of Owen
    2007, Annals of Applied Statistics 1(2), whose variance is not below the true one). With one
    seed it is the percentile bootstrap of rows (Efron and Tibshirani 1993, chapter 13).
    """

    def __init__(self, rows: int, seeds: int, samples: int):
        random = np.random.default_rng(SEED)
        self.rows = random.multinomial(rows, np.full(rows, 1 / rows), size=samples).astype(np.float64)
        self.seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds

    def values(self, metric: str, statistics: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
        """A metric averaged over seeds, and the same of each resample.

        Args:
            metric: its name.
            statistics: of each seed, (rows, statistics); one for a system without seeds.

        Returns:
            The value, and an array of shape (samples,).
        """
        drawn = np.stack([value(metric, self.rows @ one) for one in statistics], axis=-1)
        weights = self.seeds if len(statistics) == self.seeds.shape[1] else np.ones((1, 1))
        return float(np.mean([value(metric, one.sum(0)) for one in statistics])), (drawn * weights).sum(-1)


def percentiles(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    """The ends of a percentile interval."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def simultaneous(values: Sequence[float], drawn: Sequence[np.ndarray], confidence: float) -> list[tuple[float, float]]:
    """Intervals that all hold together at ``confidence``: single-step max-t (Westfall and Young 1993).

    Args:
        values: one for each comparison.
        drawn: the resamples of each, (samples,), of the same draws.

    A comparison without any spread keeps its value as both ends.
    """
    centre, spread = np.array(values), np.std(drawn, axis=1)
    scaled = np.divide(
        np.abs(np.asarray(drawn).T - centre), spread, out=np.zeros((len(drawn[0]), len(values))), where=spread > 0
    )
    reach = np.quantile(scaled.max(1), confidence) * spread
    return [(float(low), float(high)) for low, high in zip(centre - reach, centre + reach, strict=True)]
