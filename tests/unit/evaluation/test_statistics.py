"""Intervals say what the rows show, and the same for the same rows."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from snaketune.evaluation.bootstrap import Resampling, percentiles, simultaneous

GENERATOR = np.random.default_rng(0)


def answers(share: float, rows: int = 60) -> np.ndarray:
    """Statistics of a mean: right or wrong, and one row."""
    return np.stack([GENERATOR.random(rows) < share, np.ones(rows)], axis=1).astype(float)


GOOD, OTHER, POOR = answers(0.95), answers(0.8), answers(0.2)


def difference(one: list[np.ndarray], other: list[np.ndarray], seeds: int = 1) -> tuple[float, float, float]:
    draws = Resampling(60, seeds, 2000)
    (a, drawn_a), (b, drawn_b) = draws.values("accuracy", one), draws.values("accuracy", other)
    return (a - b, *percentiles(drawn_a - drawn_b, 0.95))


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_the_interval_of_rows_that_agree_is_one_point(right: float) -> None:
    rows = np.stack([np.full(60, right), np.ones(60)], axis=1)
    value, drawn = Resampling(60, 1, 100).values("accuracy", [rows])
    assert (value, *percentiles(drawn, 0.95)) == (right, right, right)


def test_equal_systems_differ_by_exactly_zero() -> None:
    assert difference([POOR], [POOR]) == (0, 0, 0)


def test_a_clear_gain_excludes_zero_and_its_reverse_mirrors_it() -> None:
    value, low, high = difference([GOOD], [POOR])
    assert 0 < low < value < high
    assert difference([POOR], [GOOD]) == pytest.approx((-value, -high, -low))


def test_a_difference_of_one_row_includes_zero() -> None:
    almost = GOOD.copy()
    almost[np.flatnonzero(GOOD[:, 0])[0], 0] = 0
    _, low, high = difference([GOOD], [almost])
    assert low <= 0 <= high


def test_the_interval_widens_with_confidence_and_stays_the_same_when_asked_again() -> None:
    value, drawn = Resampling(60, 1, 2000).values("accuracy", [OTHER])
    (low, high), (lower, higher) = percentiles(drawn, 0.5), percentiles(drawn, 0.99)
    assert lower < low < value < high < higher
    np.testing.assert_array_equal(drawn, Resampling(60, 1, 2000).values("accuracy", [OTHER])[1])


def test_with_one_seed_it_is_scipys_bootstrap_of_rows() -> None:
    _, drawn = Resampling(60, 1, 20000).values("accuracy", [OTHER])
    expected = bootstrap((OTHER[:, 0],), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert percentiles(drawn, 0.95) == pytest.approx(tuple(expected.confidence_interval), abs=0.018)
    assert drawn.std() == pytest.approx(expected.standard_error, rel=0.05)


def test_the_value_is_the_mean_over_seeds_of_the_metric_itself() -> None:
    uneven = [np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[2.0, 4.0], [0.5, 1.0]])]
    value, _ = Resampling(2, 2, 10).values("perplexity", uneven)
    assert value == pytest.approx(np.mean([np.exp(4 / 3), np.exp(2.5 / 5)]))


def test_seeds_that_disagree_widen_the_interval() -> None:
    _, low, high = difference([GOOD, GOOD, GOOD], [POOR], seeds=3)
    _, lower, higher = difference([GOOD, OTHER, POOR], [POOR], seeds=3)
    assert higher - lower > 2 * (high - low)


def test_one_comparison_needs_no_correction() -> None:
    drawn = np.random.default_rng(1).normal(0.3, 0.1, 20000)
    assert simultaneous([0.3], [drawn], 0.95)[0] == pytest.approx((0.3 - 0.196, 0.3 + 0.196), abs=0.01)


def test_many_equal_systems_are_seldom_called_different() -> None:
    """The chance that any of 45 true nulls is called stays near 5 %; uncorrected it is far higher."""
    random = np.random.default_rng(2)
    called = uncorrected = 0
    for _ in range(60):
        systems = [np.stack([random.random(150) < 0.5, np.ones(150)], axis=1).astype(float) for _ in range(10)]
        found = [Resampling(150, 1, 500).values("accuracy", [one]) for one in systems]
        pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]
        drawn = [a[1] - b[1] for a, b in pairs]
        ends = simultaneous([a[0] - b[0] for a, b in pairs], drawn, 0.95)
        called += any(low > 0 or high < 0 for low, high in ends)
        uncorrected += any(low > 0 or high < 0 for low, high in (percentiles(one, 0.95) for one in drawn))
    assert called <= 9
    assert uncorrected >= 20


def test_a_system_equal_to_the_untuned_one_in_every_seed_widens_nothing() -> None:
    """Sums over three seeds round otherwise than one seed's: that is no spread."""
    draws = Resampling(60, 3, 2000)
    found = {
        name: draws.values("accuracy", one)
        for name, one in {"base": [POOR], "same": [POOR] * 3, "good": [GOOD, OTHER, GOOD]}.items()
    }
    pairs = [("same", "base"), ("good", "base"), ("good", "same")]
    drawn = [found[a][1] - found[b][1] for a, b in pairs]
    ends = simultaneous([found[a][0] - found[b][0] for a, b in pairs], drawn, 0.95)
    assert ends[0] == (0, 0)
    assert ends[1] == pytest.approx(simultaneous([found["good"][0] - found["base"][0]], drawn[1:2], 0.95)[0], abs=1e-9)


def test_three_seeds_spread_as_the_mean_of_three_does() -> None:
    """Seeds of a known spread and rows without any: the resamples have the variance of their mean."""
    random, ratios = np.random.default_rng(4), []
    for _ in range(200):
        levels = random.normal(0, 1, 3)
        rows = [np.stack([np.full(10, level), np.ones(10)], axis=1) for level in levels]
        ratios.append(Resampling(10, 3, 500).values("accuracy", rows)[1].var())
    assert np.mean(ratios) == pytest.approx(1 / 3, rel=0.15)


def test_a_comparison_without_spread_keeps_its_value() -> None:
    drawn = [np.zeros(100), np.random.default_rng(3).normal(1, 0.1, 100)]
    assert simultaneous([0.0, 1.0], drawn, 0.95)[0] == (0, 0)
