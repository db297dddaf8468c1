"""Intervals say what the rows show, and the same for the same rows."""

import numpy as np
import pytest
from scipy.stats import bootstrap, studentized_range, t

from snaketune.evaluation.bootstrap import Resampling, SeedNoise, percentiles, simultaneous

GENERATOR = np.random.default_rng(0)


def answers(share: float, rows: int = 60) -> np.ndarray:
    """Statistics of a mean: right or wrong, and one row."""
    return np.stack([GENERATOR.random(rows) < share, np.ones(rows)], axis=1).astype(float)


GOOD, OTHER, POOR = answers(0.95), answers(0.8), answers(0.2)


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float, float]:
    draws = Resampling(60, 2000)
    (a, drawn_a), (b, drawn_b) = draws.values("accuracy", one), draws.values("accuracy", other)
    return (a - b, *percentiles(drawn_a - drawn_b, 0.95))


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_the_interval_of_rows_that_agree_is_one_point(right: float) -> None:
    rows = np.stack([np.full(60, right), np.ones(60)], axis=1)
    value, drawn = Resampling(60, 100).values("accuracy", [rows])
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
    value, drawn = Resampling(60, 2000).values("accuracy", [OTHER])
    (low, high), (lower, higher) = percentiles(drawn, 0.5), percentiles(drawn, 0.99)
    assert lower < low < value < high < higher
    np.testing.assert_array_equal(drawn, Resampling(60, 2000).values("accuracy", [OTHER])[1])


def test_with_one_seed_it_is_scipys_bootstrap_of_rows() -> None:
    _, drawn = Resampling(60, 20000).values("accuracy", [OTHER])
    expected = bootstrap((OTHER[:, 0],), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert percentiles(drawn, 0.95) == pytest.approx(tuple(expected.confidence_interval), abs=0.018)
    assert drawn.std() == pytest.approx(expected.standard_error, rel=0.05)


def test_the_value_is_the_mean_over_seeds_of_the_metric_itself() -> None:
    uneven = [np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[2.0, 4.0], [0.5, 1.0]])]
    value, _ = Resampling(2, 10).values("perplexity", uneven)
    assert value == pytest.approx(np.mean([np.exp(4 / 3), np.exp(2.5 / 5)]))


def test_one_comparison_needs_no_correction() -> None:
    drawn = np.random.default_rng(1).normal(0.3, 0.1, 20000)
    assert simultaneous([0.3], [drawn], 0.95)[0] == pytest.approx((0.3 - 0.196, 0.3 + 0.196), abs=0.01)


def test_many_equal_systems_are_seldom_called_different() -> None:
    """The chance that any of 45 true nulls is called stays near 5 %; uncorrected it is far higher."""
    random = np.random.default_rng(2)
    called = uncorrected = 0
    for _ in range(60):
        systems = [np.stack([random.random(150) < 0.5, np.ones(150)], axis=1).astype(float) for _ in range(10)]
        found = [Resampling(150, 500).values("accuracy", [one]) for one in systems]
        pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]
        drawn = [a[1] - b[1] for a, b in pairs]
        ends = simultaneous([a[0] - b[0] for a, b in pairs], drawn, 0.95)
        called += any(low > 0 or high < 0 for low, high in ends)
        uncorrected += any(low > 0 or high < 0 for low, high in (percentiles(one, 0.95) for one in drawn))
    assert called <= 9
    assert uncorrected >= 20


def test_a_system_equal_to_the_untuned_one_in_every_seed_widens_nothing() -> None:
    """Sums over three seeds round otherwise than one seed's: that is no spread."""
    draws = Resampling(60, 2000)
    systems = {"base": [POOR], "same": [POOR] * 3, "good": [GOOD, OTHER, GOOD]}
    found = {name: draws.values("accuracy", one) for name, one in systems.items()}
    pairs = [("same", "base"), ("good", "base"), ("good", "same")]
    drawn = [found[a][1] - found[b][1] for a, b in pairs]
    ends = simultaneous([found[a][0] - found[b][0] for a, b in pairs], drawn, 0.95)
    assert ends[0] == (0, 0)
    assert ends[1] == pytest.approx(simultaneous([found["good"][0] - found["base"][0]], drawn[1:2], 0.95)[0], abs=1e-9)


def of_noise_alone(values: list[list[float]], pairs: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """Intervals where every row agrees: only training varies."""
    noise, means = SeedNoise(values, [len(one) > 1 for one in values], 20000), [float(np.mean(one)) for one in values]
    first, second = (list(each) for each in zip(*pairs, strict=True))
    errors, spread = noise.errors[first] - noise.errors[second], np.hypot(noise.spread[first], noise.spread[second])
    differences = [means[a] - means[b] for a, b in pairs]
    drawn = np.repeat(np.array(differences)[:, None], 20000, axis=1)
    return simultaneous(differences, list(drawn), 0.95, errors * noise.t_scale, spread)


def test_two_seeds_noise_is_students_t() -> None:
    values = [[0.5], [0.6, 0.7]]
    (low, high), middle = of_noise_alone(values, [(1, 0)])[0], 0.15
    reach = t.ppf(0.975, 1) * np.std(values[1], ddof=1) / np.sqrt(2)
    assert (middle - low, high - middle) == pytest.approx((reach, reach), rel=0.1)


def test_the_noise_of_seeds_is_pooled_over_techniques_and_between_them_the_intervals_are_tukeys() -> None:
    values = [list(np.random.default_rng(number).normal(0.5, 0.03, 3)) for number in range(4)]
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    pooled = np.sqrt(np.mean([np.var(one, ddof=1) for one in values]))
    reach = studentized_range.ppf(0.95, 4, 8) * pooled / np.sqrt(3)
    for low, high in of_noise_alone(values, pairs):
        assert (high - low) / 2 == pytest.approx(reach, rel=0.03)


def test_one_seed_has_no_noise_to_estimate() -> None:
    noise = SeedNoise([[0.5], [0.6], [0.7]], [False, True, True], 100)
    assert not noise.errors.any()
    assert not noise.spread.any()
