"""Intervals say what the rows show, and the same for the same rows."""

import numpy as np
import pytest

from snaketune import statistics
from snaketune.metrics import classification_metrics
from snaketune.statistics import interval, score

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.choice(["a", "b", "c"], 60)
GOOD, OTHER, POOR = (np.where(GENERATOR.random(60) < share, LABELS, "b") for share in (0.95, 0.8, 0.2))
METRICS = pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])


def ends(metric: str, predicted: list[np.ndarray], against: list[np.ndarray]) -> tuple[float, float, float]:
    return interval(metric, LABELS, predicted, against, 100, 0.95)


@METRICS
def test_the_interval_of_a_perfect_model_is_one_point(metric: str) -> None:
    assert ends(metric, [LABELS], []) == (1, 1, 1)


def test_the_interval_of_a_model_that_is_never_right_is_one_point() -> None:
    assert ends("accuracy", [np.full(60, "z")], []) == (0, 0, 0)


@METRICS
def test_equal_predictions_differ_by_exactly_zero(metric: str) -> None:
    assert ends(metric, [POOR], [POOR]) == (0, 0, 0)


@METRICS
def test_a_clear_gain_excludes_zero_and_its_reverse_mirrors_it(metric: str) -> None:
    value, low, high = ends(metric, [GOOD], [POOR])
    assert 0 < low < value < high
    assert ends(metric, [POOR], [GOOD]) == pytest.approx((-value, -high, -low))


@METRICS
def test_a_difference_of_one_row_includes_zero(metric: str) -> None:
    almost = GOOD.copy()
    almost[np.flatnonzero(GOOD == LABELS)[0]] = "z"
    _, low, high = ends(metric, [GOOD], [almost])
    assert low <= 0 <= high


@METRICS
def test_the_interval_holds_the_value_and_widens_with_confidence(metric: str) -> None:
    value, low, high = interval(metric, LABELS, [OTHER], [], 100, 0.5)
    _, lower, higher = interval(metric, LABELS, [OTHER], [], 100, 0.99)
    assert lower < low < value < high < higher


@METRICS
def test_the_same_rows_give_the_same_interval(metric: str) -> None:
    assert ends(metric, [GOOD, OTHER], [POOR]) == ends(metric, [GOOD, OTHER], [POOR])


@METRICS
def test_a_score_is_the_mean_over_seeds_of_the_librarys_metric(metric: str) -> None:
    expected = np.mean([classification_metrics(list(LABELS), list(one))[metric] for one in (GOOD, POOR)])
    assert score(metric, LABELS, [GOOD, POOR]) == pytest.approx(expected)


def test_accuracy_in_one_stroke_equals_accuracy_row_draw_by_row_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    # Under another name, accuracy takes the path of the metrics that can't be computed at once.
    monkeypatch.setattr(
        statistics,
        "classification_metrics",
        lambda labels, predicted: {"slowly": classification_metrics(labels, predicted)["accuracy"]},
    )
    assert ends("slowly", [GOOD, OTHER], [POOR]) == pytest.approx(ends("accuracy", [GOOD, OTHER], [POOR]))
