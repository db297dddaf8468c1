"""Parity is exact where two models are equal, and a figure over its budget is seen."""

import json
import math
from typing import Any

import numpy as np
import pytest

from snaketune.evaluation.parity import broken, compare_answers, compare_logits, over_budget, what_passes, without_nan

LOGITS = np.random.default_rng(0).normal(size=(16, 9)).astype(np.float32)
POSITIONS = [4, 4, 4, 3, 1]


def compare(parent: np.ndarray, child: np.ndarray) -> dict[str, Any]:
    return compare_logits(parent, child, POSITIONS if len(parent) == 16 else [1] * len(parent), 500, 0.95)


def test_equal_logits_agree_in_all() -> None:
    nothing = dict.fromkeys(("largest_logit_difference", "mean_logit_difference", "kl_divergence"), 0)
    intervals = {"greedy_agreement_ci": [1, 1], "kl_divergence_ci": [0, 0]}
    assert compare(LOGITS, LOGITS) == nothing | intervals | {"greedy_agreement": 1, "positions": 16, "rows": 5}


def test_a_shift_of_all_logits_moves_logits_and_no_probability() -> None:
    found = compare(LOGITS, LOGITS + 1)
    assert found["largest_logit_difference"] == pytest.approx(1, rel=1e-6)
    assert found["kl_divergence"] == pytest.approx(0, abs=1e-6)
    assert found["greedy_agreement"] == 1


def test_one_changed_position_counts_as_one() -> None:
    changed = LOGITS.copy()
    changed[3, LOGITS[3].argmin()] = 20
    found = compare(LOGITS, changed)
    assert found["greedy_agreement"] == 15 / 16
    low, high = found["greedy_agreement_ci"]
    assert low < 15 / 16 < high == 1


def test_the_divergence_is_that_of_the_parent_from_the_child() -> None:
    parent, child = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert compare(parent, child)["kl_divergence"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("found", "budget", "words"),
    [
        ({"kl_divergence": 0.2}, {"kl_divergence": 0.1}, "hop: kl_divergence is 0.2, expected at most 0.1"),
        ({"metric_change": -0.2}, {"smallest_metric_change": -0.1}, "metric_change is -0.2, expected at least -0.1"),
        ({"kl_divergence": math.nan}, {"kl_divergence": 0.1}, "kl_divergence is nan"),
        ({"greedy_agreement": math.nan}, {"smallest_greedy_agreement": 0.9}, "greedy_agreement is nan"),
    ],
)
def test_a_figure_over_its_budget_is_told(found: dict[str, float], budget: dict[str, float], words: str) -> None:
    [message] = over_budget("hop", found, budget)
    assert words in message


def test_a_figure_at_its_budget_passes_and_so_does_one_that_was_not_measured() -> None:
    """A plain text has no prompt, and an unmerged adapter no answers."""
    budget = {"kl_divergence": 0.1, "smallest_greedy_agreement": 0.9, "smallest_prompt_agreement": 1.0}
    assert over_budget("hop", {"kl_divergence": 0.1, "greedy_agreement": 0.9}, budget) == []


STEPS: dict[str, Any] = {
    "merged-onnx-fp32": {},
    "onnx-fp32-int4": {"metric_change": -0.19, "share_of_fp32_bytes": 0.131, "bytes": 1},
    "onnx-fp32-int8": {"metric_change": 0.004, "share_of_fp32_bytes": 0.254, "bytes": 3},
    "onnx-fp32-auto": {"metric_change": -0.006, "share_of_fp32_bytes": 0.226, "bytes": 2},
}


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (["merged-onnx-fp32", "onnx-fp32-int4"], ""),
        ([], ""),
        (
            ["onnx-fp32-int4"],
            "int4 (-0.190 at 0.13 of the fp32 bytes). Within their budget: auto (-0.006 at 0.23 of the fp32 bytes); int8 (+0.004",
        ),
        (list(STEPS)[1:], "Within their budget: none; list `auto` in `precisions`"),
    ],
)
def test_a_failed_export_ends_with_what_would_pass(failed: list[str], words: str) -> None:
    found = what_passes(STEPS, failed)
    assert words in found
    assert bool(found) == bool(words)


def predicted(nll: list[float], right: list[int]) -> list[dict[str, Any]]:
    rows = zip(nll, right, strict=True)
    return [{"nll": one, "answer_tokens": 2, "statistics": {"accuracy": [float(hit), 1.0]}} for one, hit in rows]


def test_the_change_of_perplexity_is_the_log_of_its_ratio() -> None:
    parent, child = predicted([2.0, 4.0], [1, 0]), predicted([2.2, 4.4], [1, 1])
    found = compare_answers("accuracy", parent, child, 500, 0.95)
    assert found["perplexity_change"] == pytest.approx(0.6 / 4)
    assert found["metric_change"] == pytest.approx(0.5)
    assert found["perplexity_change_ci"] == pytest.approx([0.1, 0.2])
    assert (found["n"], found["answer_tokens"]) == (2, 4)


def test_equal_predictions_change_nothing() -> None:
    rows = predicted([1.0, 2.0, 3.0], [1, 0, 1])
    found = compare_answers("accuracy", rows, rows, 500, 0.95)
    assert found["perplexity_change"] == found["metric_change"] == 0
    assert found["metric_change_ci"] == found["perplexity_change_ci"] == [0, 0]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [np.s_[:], np.s_[:, 0], np.s_[5, 2]], ids=["all", "a token", "one"])
def test_logits_that_are_not_numbers_are_over_every_budget(
    place: Any, wrong: float, recwarn: pytest.WarningsRecorder
) -> None:
    child = LOGITS.copy()
    child[place] = wrong
    for found in (compare(LOGITS, child), compare(child, LOGITS), compare(child, child)):
        assert broken(found)
        budget = {"largest_logit_difference": 1e9, "smallest_greedy_agreement": 0.99}
        assert len(over_budget("hop", found, budget)) == 2
        told = json.loads(json.dumps(without_nan(found), allow_nan=False))
        assert told["largest_logit_difference"] is None
        assert told["positions"] == 16
    assert not recwarn.list


def test_finite_logits_are_whole(recwarn: pytest.WarningsRecorder) -> None:
    found = compare(LOGITS, LOGITS * 1e30)
    assert not broken(found)
    assert without_nan(found) == found
    assert not recwarn.list
