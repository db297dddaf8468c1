"""A recommendation claims no more than the intervals show."""

from collections.abc import Callable
from pathlib import Path

import pytest

from snaketune.files import write_json, write_jsonl
from summarize import Results, compared, recommend

LABELS = list("abcd" * 15)
WRONG = ["b"] * 60
Better = Callable[[str, str], bool]


def beats(*pairs: tuple[str, str]) -> Better:
    return lambda a, b: (a, b) in pairs


def test_without_a_gain_nothing_is_recommended() -> None:
    found = recommend([], {"base": 0.5, "lora": 0.6}, beats(), {"lora": (1, 1.0)})
    assert found["recommended"] is None
    assert "no difference shown" in found["reason"]


def test_a_technique_that_beats_all_others_is_recommended_whatever_its_cost() -> None:
    better = beats(("full", "base"), ("lora", "base"), ("full", "lora"))
    found = recommend(
        ["lora", "full"], {"base": 0.5, "lora": 0.6, "full": 0.9}, better, {"lora": (1, 1), "full": (9, 9)}
    )
    assert (found["recommended"], found["equals"]) == ("full", ["full"])
    assert "beats" in found["reason"]


def test_among_equals_the_one_with_the_least_memory_is_recommended() -> None:
    better = beats(("full", "base"), ("lora", "base"), ("dora", "base"), ("full", "dora"))
    quality = {"base": 0.5, "dora": 0.6, "lora": 0.8, "full": 0.9}
    cost = {"dora": (2**20, 1.0), "lora": (2 * 2**20, 5.0), "full": (9 * 2**20, 1.0)}
    found = recommend(["dora", "lora", "full"], quality, better, cost)
    assert (found["recommended"], found["equals"]) == ("lora", ["lora", "full"])
    assert "no difference shown between lora, full" in found["reason"]
    assert "2 MiB" in found["reason"]


def test_among_equals_of_equal_memory_the_faster_is_recommended() -> None:
    better = beats(("full", "base"), ("lora", "base"))
    found = recommend(
        ["lora", "full"], {"base": 0.5, "lora": 0.6, "full": 0.9}, better, {"lora": (1, 2), "full": (1, 1)}
    )
    assert found["recommended"] == "full"


def test_no_win_is_claimed_over_a_technique_that_may_be_equal() -> None:
    found = recommend(["full"], {"base": 0.5, "lora": 0.55, "full": 0.6}, beats(("full", "base")), {"full": (1, 1)})
    assert found["recommended"] == "full"
    assert "every other technique" not in found["reason"]


def save_run(root: Path, technique: str, predictions: list[str], memory: int, world_size: int = 1) -> list[object]:
    seed = 0 if technique == "base" else 1
    run = root / f"runs/model/scenario/{technique}/seed-{seed}"
    rows = [{"label": label, "prediction": one} for label, one in zip(LABELS, predictions, strict=True)]
    write_jsonl(run / "evaluation/torch.predictions.jsonl", rows)
    write_json(run / "resources.json", {"peak_memory_bytes": memory, "world_size": world_size, "seconds": 1.0})
    return ["model", "scenario", technique, seed]


def comparison(root: Path, cells: list[list[object]], higher_is_better: bool = True) -> dict[str, object]:
    recipe = {
        "scenarios": {"scenario": {"primary_metric": "accuracy", "higher_is_better": higher_is_better}},
        "cells": cells,
        "bootstrap_samples": 300,
        "confidence": 0.95,
    }
    return compared(Results(root, recipe), "model", "scenario")


def test_measured_runs_that_are_equal_are_told_apart_by_the_memory_of_all_ranks(tmp_path: Path) -> None:
    cells = [
        save_run(tmp_path, "base", WRONG, 0),
        save_run(tmp_path, "zero3", LABELS, 6, world_size=2),
        save_run(tmp_path, "lora", LABELS, 10),
    ]
    found = comparison(tmp_path, cells)
    assert (found["recommended"], found["equals"]) == ("lora", ["zero3", "lora"])
    assert found["not_better_than_base"] == []


def test_a_measured_run_that_is_clearly_best_is_recommended(tmp_path: Path) -> None:
    half = [label if n < 30 else "z" for n, label in enumerate(LABELS)]
    cells = [
        save_run(tmp_path, "base", ["z"] * 60, 0),
        save_run(tmp_path, "lora", half, 1),
        save_run(tmp_path, "full", LABELS, 9),
    ]
    assert comparison(tmp_path, cells)["recommended"] == "full"


def test_measured_runs_without_a_gain_are_all_named(tmp_path: Path) -> None:
    cells = [save_run(tmp_path, "base", WRONG, 0), save_run(tmp_path, "lora", WRONG, 1)]
    found = comparison(tmp_path, cells)
    assert found["recommended"] is None
    assert found["not_better_than_base"] == ["lora"]
    assert found["pairs"] == [{"a": "base", "b": "lora", "difference": 0, "ci_low": 0, "ci_high": 0}]


@pytest.mark.parametrize(("higher_is_better", "behind"), [(True, []), (False, ["full"])])
def test_the_direction_of_the_metric_counts(higher_is_better: bool, behind: list[str], tmp_path: Path) -> None:
    cells = [save_run(tmp_path, "base", WRONG, 0), save_run(tmp_path, "full", LABELS, 1)]
    assert comparison(tmp_path, cells, higher_is_better)["not_better_than_base"] == behind
