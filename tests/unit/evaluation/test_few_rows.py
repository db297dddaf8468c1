"""Where a bootstrap shows too little, an exact method speaks: rows that agree, and few rows that differ."""

import numpy as np
import pytest
from scipy.stats import binomtest

from snaketune.evaluation.few_rows import difference_interval, permutation_p_value, value_interval


def hits(right: int, rows: int) -> np.ndarray:
    return np.stack([np.arange(rows) < right, np.ones(rows)], axis=1).astype(float)


@pytest.mark.parametrize(("right", "rows"), [(2, 2), (0, 2), (60, 60), (1, 60), (297, 300)])
def test_a_share_near_its_ends_has_wilsons_interval(right: int, rows: int) -> None:
    found = value_interval("accuracy", hits(right, rows), (right / rows, right / rows), 0.95)
    expected = binomtest(right, rows).proportion_ci(0.95, "wilson")
    assert found == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("metric", "statistics"),
    [
        ("accuracy", hits(30, 60)),
        ("perplexity", np.stack([np.full(60, 0.01), np.ones(60)], axis=1)),
        ("entity_f1", np.stack([np.full(60, 2.0), np.full(60, 2.0)], axis=1)),
        ("chrf", np.ones((60, 18))),
    ],
    ids=["in the middle", "no share", "rows of different weight", "n-grams"],
)
def test_other_intervals_are_left_to_the_bootstrap(metric: str, statistics: np.ndarray) -> None:
    assert value_interval(metric, statistics, (0.3, 0.7), 0.95) == (0.3, 0.7)


def test_two_rows_of_two_give_no_certain_difference() -> None:
    low, high = difference_interval("accuracy", hits(2, 2), hits(0, 2), (1.0, 1.0), 0.95)
    assert low <= 0 < 1 <= high


def test_all_of_sixty_rows_give_a_difference_whose_interval_isnt_a_point() -> None:
    low, high = difference_interval("accuracy", hits(60, 60), hits(0, 60), (1.0, 1.0), 0.95)
    assert (0.9 < low < 1, high) == (True, pytest.approx(1))
    mirrored = difference_interval("accuracy", hits(0, 60), hits(60, 60), (-1.0, -1.0), 0.95)
    assert mirrored == pytest.approx((-high, -low))


@pytest.mark.parametrize(("gained", "shown"), [(5, False), (6, True)])
def test_a_difference_in_few_rows_must_pass_the_exact_test(gained: int, shown: bool) -> None:
    """McNemar's: of five rows that differ, all on one side, p is 0.0625. A bootstrap is certain from four on."""
    one, other = hits(50 + gained, 100), hits(50, 100)
    assert permutation_p_value("accuracy", one, other) == pytest.approx(2 * 0.5**gained)
    low, _ = difference_interval("accuracy", one, other, (0.01, 0.1), 0.95)
    assert (low > 0) == shown


def test_the_exact_test_is_of_any_metric() -> None:
    random = np.random.default_rng(0)
    one = np.stack([random.random(30) * 4, np.full(30, 4.0)], axis=1)
    other = one.copy()
    other[:8, 0] += 2
    assert permutation_p_value("perplexity", one, other) == pytest.approx(2 / 2**8)
    assert difference_interval("perplexity", one, one, (0.0, 0.0), 0.95) == (0, 0)
