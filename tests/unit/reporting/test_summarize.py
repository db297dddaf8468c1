"""A recommendation claims no more than the intervals show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snaketune.core.files import write_json, write_jsonl
from snaketune.reporting.comparison import Results, compare, recommend

RIGHT = [1.0] * 60
WRONG = [0.0] * 45 + [1.0] * 15
SOME = [1.0, 0.0, 1.0, 1.0, 0.0] * 12
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


def save_run(
    root: Path,
    technique: str,
    hits: list[float],
    memory: int,
    world_size: int = 1,
    seed: int = 1,
    losses: tuple[float, ...] = (1.0,),
) -> list[object]:
    seed = 0 if technique == "base" else seed
    run = root / f"runs/model/scenario/{technique}/seed-{seed}"
    rows = [{"statistics": {"accuracy": [hit, 1]}} for hit in hits]
    write_jsonl(run / "evaluation/torch.predictions.jsonl", rows)
    write_jsonl(run / "train.jsonl", [{"loss": 0.0}, *({"loss": 0.0, "validation_loss": loss} for loss in losses)])
    write_json(run / "resources.json", {"peak_memory_bytes": memory, "world_size": world_size, "seconds": 1.0})
    return ["model", "scenario", technique, seed]


def comparison(root: Path, cells: list[list[object]], higher_is_better: bool = True) -> dict[str, Any]:
    recipe = {
        "scenarios": {"scenario": {"primary_metric": "accuracy", "higher_is_better": higher_is_better}},
        "cells": cells,
        "bootstrap_samples": 300,
        "confidence": 0.95,
    }
    return compare(Results(root, recipe), "model", "scenario")


def pair(found: dict[str, Any], a: str, b: str) -> dict[str, float]:
    return next(one for one in found["pairs"] if (one["a"], one["b"]) == (a, b))


def test_measured_runs_that_are_equal_are_told_apart_by_the_memory_of_all_ranks(tmp_path: Path) -> None:
    cells = [
        save_run(tmp_path, "base", WRONG, 0),
        save_run(tmp_path, "zero3", RIGHT, 6, world_size=2),
        save_run(tmp_path, "lora", RIGHT, 10),
    ]
    found = comparison(tmp_path, cells)
    assert (found["recommended"], found["equals"]) == ("lora", ["zero3", "lora"])
    assert found["not_better_than_base"] == []


def test_a_measured_run_that_is_clearly_best_is_recommended(tmp_path: Path) -> None:
    cells = [
        save_run(tmp_path, "base", [0.0] * 60, 0),
        save_run(tmp_path, "lora", [1.0] * 30 + [0.0] * 30, 1),
        save_run(tmp_path, "full", RIGHT, 9),
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
    cells = [save_run(tmp_path, "base", WRONG, 0), save_run(tmp_path, "full", RIGHT, 1)]
    assert comparison(tmp_path, cells, higher_is_better)["not_better_than_base"] == behind


def test_of_a_metric_that_is_better_lower_the_lowest_is_recommended(tmp_path: Path) -> None:
    cells = [
        save_run(tmp_path, "base", RIGHT, 0),
        save_run(tmp_path, "lora", SOME, 1),
        save_run(tmp_path, "full", [0.0] * 60, 9),
    ]
    found = comparison(tmp_path, cells, higher_is_better=False)
    assert (found["recommended"], found["not_better_than_base"]) == ("full", [])


def test_a_value_is_the_mean_over_seeds_and_the_untuned_model_has_one(tmp_path: Path) -> None:
    cells = [save_run(tmp_path, "base", WRONG, 0)]
    cells += [save_run(tmp_path, "full", hits, 1, seed=seed) for seed, hits in ((1, RIGHT), (2, SOME), (3, WRONG))]
    found = comparison(tmp_path, cells)
    assert found["seeds"] == [1, 2, 3]
    assert found["values"]["full"]["value"] == pytest.approx((1 + 0.6 + 0.25) / 3)
    assert pair(found, "base", "full")["difference"] == pytest.approx(0.25 - (1 + 0.6 + 0.25) / 3)


def test_a_gain_that_one_seed_alone_has_is_not_called_one(tmp_path: Path) -> None:
    """Over rows it is certain; another seed might show none."""
    cells = [save_run(tmp_path, "base", WRONG, 0), save_run(tmp_path, "full", RIGHT, 1, seed=1)]
    assert comparison(tmp_path, cells)["recommended"] == "full"
    cells += [save_run(tmp_path, "full", WRONG, 1, seed=seed) for seed in (2, 3)]
    found = comparison(tmp_path, cells)
    assert found["recommended"] is None
    assert found["not_better_than_base"] == ["full"]


def test_an_interval_of_many_comparisons_is_wider_than_of_one(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    cells = [save_run(tmp_path, "base", WRONG, 0), save_run(tmp_path, "full", SOME, 1)]
    alone = pair(comparison(tmp_path, cells), "base", "full")
    cells += [save_run(tmp_path, f"t{n}", list(random.integers(0, 2, 60).astype(float)), 1) for n in range(6)]
    together = pair(comparison(tmp_path, cells), "base", "full")
    assert together["difference"] == alone["difference"]
    assert together["ci_low"] < alone["ci_low"] < alone["ci_high"] < together["ci_high"]


def test_the_choice_on_validation_looks_at_the_last_loss_over_seeds_and_at_no_test_row(tmp_path: Path) -> None:
    cells = [save_run(tmp_path, "base", SOME, 0)]
    # full is best on the test rows, and at its first epoch, and in its first seed.
    cells += [save_run(tmp_path, "full", RIGHT, 1, seed=n, losses=(0.1, last)) for n, last in ((1, 0.5), (2, 2.5))]
    cells += [save_run(tmp_path, "lora", WRONG, 1, seed=n, losses=(3.0, 1.0)) for n in (1, 2)]
    found = comparison(tmp_path, cells)["chosen_on_validation"]
    assert found == {
        "technique": "lora",
        "validation_losses": {"full": pytest.approx(1.5), "lora": pytest.approx(1.0)},
        "better_than_base": False,
    }


def test_the_technique_chosen_on_validation_is_told_better_where_it_is(tmp_path: Path) -> None:
    cells = [save_run(tmp_path, "base", WRONG, 0), save_run(tmp_path, "full", RIGHT, 1)]
    assert comparison(tmp_path, cells)["chosen_on_validation"]["better_than_base"]
