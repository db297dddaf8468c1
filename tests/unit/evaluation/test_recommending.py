"""The precision to ship is within its budget and fast; a smaller one that is slower is told."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from snaketune.evaluation.speed import in_turns, prompts_of
from snaketune.reporting.recommend_precision import recommend_precision, smallest_precision

PRECISIONS = ["fp32", "int8", "int4", "genai-int4"]


def system(size: int, rate: float, wide: float = 0.0) -> dict[str, Any]:
    decoding = {"decode_tokens_per_second": {"median": rate, "least": rate - wide, "most": rate + wide}}
    shapes = [{"prompt_tokens": prompt, "batch": batch, **decoding} for prompt in (8, 32) for batch in (1, 4)]
    return {"file_bytes": size, "shapes": shapes}


def parity_of(hop: str | None = None, told: str | None = None) -> dict[str, Any]:
    """The parity of a run of which one step, or none, is over its budget."""
    over = [told or f"{hop}: kl_divergence is 1, expected at most 0.2"] if hop else []
    return {"over_budget": over, "over_budget_hops": [hop] if hop else [], "without_budget": [], "hops": {}}


def found(over: Sequence[str] = (), unbudgeted: Sequence[str] = (), **systems: Any) -> dict[str, Any]:
    known = {
        "torch-fp32": system(100, 50),
        "onnx-fp32": system(100, 100),
        "onnx-int8": system(30, 150),
        "onnx-int4": system(20, 120),
        "genai-int4": system(20, 400),
    }
    benchmark = {"systems": known | {name.replace("_", "-"): one for name, one in systems.items()}}
    parity = {
        "over_budget": [f"{hop}: kl_divergence is 1, expected at most 0.2" for hop in over],
        "over_budget_hops": list(over),
        "without_budget": list(unbudgeted),
        "hops": {},
    }
    return recommend_precision(PRECISIONS, parity, benchmark)


def test_the_fastest_within_budget_is_taken() -> None:
    choice = found()
    assert choice["precision"] == "genai-int4"
    assert choice["reason"] == (
        "within its parity budget, and none decodes faster (8.0× torch fp32; batch 1, prompt of 32 tokens)"
    )
    assert choice["warnings"] == []


def test_one_over_or_without_a_budget_is_passed_over() -> None:
    choice = found(["onnx-fp32-genai-int4"])
    over = "genai-int4 is over its parity budget (kl_divergence is 1, expected at most 0.2)"
    assert (choice["precision"], choice["warnings"]) == ("int8", [over])
    assert found(unbudgeted=["adapter-merged", "onnx-fp32-genai-int4"])["precision"] == "int8"


def test_without_a_benchmark_the_smallest_within_budget_is_taken() -> None:
    size = {"fp32": 100.0, "int8": 30.0, "int4": 20.0}
    parity = parity_of("onnx-fp32-int4", "onnx-fp32-int4: metric_change is -0.0556, expected at least -0.05")
    parity["hops"] = {"onnx-fp32-int4": {"metric_change_ci": [-0.09877, -0.01234]}}
    over = "int4 is over its parity budget (metric_change is -0.0556 [-0.0988, -0.0123], expected at least -0.05)"
    choice = smallest_precision(list(size), parity, size)
    assert (choice["precision"], choice["warnings"]) == ("int8", [over])
    choice = smallest_precision(["fp32", "int4"], parity, size)
    assert choice["reason"] == "the only one within its parity budget; its speed was not compared"
    assert choice["warnings"][0] == over
    assert choice["warnings"][1].startswith("Next: add another precision, such as `auto`")
    unbudgeted = parity_of() | {"without_budget": ["onnx-fp32-int4"]}
    assert smallest_precision(list(size), unbudgeted, size)["warnings"] == ["int4 has no parity budget"]
    assert smallest_precision(list(size), parity_of("adapter-merged"), size)["precision"] is None


def test_an_adapter_that_isnt_what_was_trained_beside_its_base_is_passed_over() -> None:
    sizes = {"fp32": 100.0, "int4": 1.0}
    for over, precision in ([], "int4"), (["adapter-shipped"], "fp32"):
        parity = parity_of(*over)
        assert smallest_precision(list(sizes), parity, sizes)["precision"] == precision


@pytest.mark.parametrize("hop", ["adapter-merged", "merged-onnx-fp32"])
def test_nothing_is_recommended_after_a_broken_parent(hop: str) -> None:
    choice = found([hop])
    assert (choice["precision"], choice["reason"]) == (None, "no precision is within its parity budget")


def test_of_those_that_the_spread_does_not_tell_apart_the_smallest_is_taken() -> None:
    choice = found(onnx_int8=system(30, 410, wide=20))
    assert choice["precision"] == "genai-int4"
    assert "as fast as int8 within the spread, with the smaller file" in choice["reason"]


def test_a_smaller_file_that_decodes_slower_is_warned_of() -> None:
    assert found(onnx_int4=system(20, 25))["warnings"] == [
        "int4 is smaller than fp32 (0.20 of its bytes), but decodes at 0.25× its rate (batch 1, prompt of 32 tokens)"
    ]


def test_each_system_is_first_as_often_as_another() -> None:
    orders = list(in_turns(["a", "b", "c"], 6))
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert [order[0] for order in orders] == ["a", "b", "c"] * 2


def test_prompts_are_stretches_of_the_text_and_go_round_at_its_end() -> None:
    assert prompts_of(np.arange(10, 15), 2, 3).tolist() == [[10, 11, 12], [13, 14, 10]]
