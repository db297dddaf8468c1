"""A recommendation claims no more than the intervals show."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.measurements import HARDWARE, MIB, run_script

from more_seeds import more_seeds
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml, write_json, write_jsonl
from snaketune.core.paths import run_path
from snaketune.dag.recipes import Recipes
from snaketune.reporting.comparison import compare, judge
from snaketune.reporting.difference import artifact, difference
from snaketune.reporting.recommend_technique import Cost, recommend
from snaketune.reporting.results import Results

ROOT = Path(__file__).parents[3]
RIGHT = [1.0] * 60
WRONG = [0.0] * 45 + [1.0] * 15
SOME = [1.0, 0.0, 1.0, 1.0, 0.0] * 12
Better = Callable[[str, str], bool]


def beats(*pairs: tuple[str, str]) -> Better:
    return lambda a, b: (a, b) in pairs


def cost(state: float, saved: float = 1, *seconds: float) -> Cost:
    return Cost(state * MIB, saved * MIB, seconds or (1.0,))


def test_without_a_gain_nothing_is_recommended() -> None:
    found = recommend([], {"base": 0.5, "lora": 0.6}, beats(), {"lora": cost(1)}, "artifact")
    assert found["recommended"] is None
    assert "no difference shown: no trained model beats" in found["reason"]


def test_a_technique_that_beats_all_others_is_recommended_whatever_its_cost() -> None:
    better = beats(("full", "base"), ("lora", "base"), ("full", "lora"))
    prices = {"lora": cost(1), "full": cost(9)}
    found = recommend(["lora", "full"], {"base": 0.5, "lora": 0.6, "full": 0.9}, better, prices, "technique")
    assert (found["recommended"], found["equals"], found["ties"]) == ("full", ["full"], [])
    assert "beats the untuned model and every other technique" in found["reason"]


@pytest.mark.parametrize(
    ("prices", "chosen", "ties", "why"),
    [
        ({"lora": cost(2, 9, 9), "full": cost(9, 1, 1)}, "lora", [], "model states|optimizer states .*2.0 MiB"),
        ({"lora": cost(2, 9, 1), "full": cost(2, 1, 9)}, "full", [], "saves the fewest bytes .1.0 MiB"),
        ({"lora": cost(2, 1, 5, 6), "full": cost(2, 1, 3, 4)}, "full", [], "every run of it was faster"),
        ({"lora": cost(2, 1, 3, 6), "full": cost(2, 1, 2, 4)}, "lora", ["full"], "a tie, of which it was named first"),
        ({"lora": cost(2, 1, 6), "full": cost(2, 1, 2)}, "lora", ["full"], "nothing measured tells it apart from full"),
        ({"lora": cost(math.inf), "full": cost(math.inf)}, "lora", ["full"], "the model state of none was measured"),
    ],
    ids=["state", "saved bytes", "time in every seed", "times that overlap", "one time", "unmeasured"],
)
def test_among_equals_the_least_state_then_saved_bytes_then_time_is_recommended(
    prices: dict[str, Cost], chosen: str, ties: list[str], why: str
) -> None:
    """dora is worse, so its cost doesn't count."""
    better = beats(("full", "base"), ("lora", "base"), ("dora", "base"), ("full", "dora"))
    quality = {"base": 0.5, "dora": 0.6, "lora": 0.8, "full": 0.9}
    found = recommend(["dora", "lora", "full"], quality, better, {"dora": cost(1), **prices}, "artifact")
    assert (found["recommended"], found["equals"], found["ties"]) == (chosen, ["lora", "full"], ties)
    assert "no difference shown between lora, full" in found["reason"]
    assert re.search(why, found["reason"])


def test_no_win_is_claimed_over_a_technique_that_may_be_equal() -> None:
    better = beats(("full", "base"))
    found = recommend(["full"], {"base": 0.5, "lora": 0.55, "full": 0.6}, better, {"full": cost(1)}, "technique")
    assert found["recommended"] == "full"
    assert "every other technique" not in found["reason"]


def compared(
    root: Path,
    memory: dict[str, int] | None = None,
    losses: dict[str, list[list[float]]] | None = None,
    higher_is_better: bool = True,
    silent: str = "",
    **systems: list[list[float]],
) -> dict[str, Any]:
    """The comparison of systems, given by what each test row scores with each seed.

    Args:
        memory: bytes that a rank of a technique holds, 1 unless told.
        losses: of each technique and seed, after each epoch.
        silent: the technique whose every answer is empty.
    """
    cells = []
    for name, number, hits in ((name, n, hits) for name, seeds in systems.items() for n, hits in enumerate(seeds)):
        cells.append(["model", "scenario", name, 0 if name == "base" else number + 1])
        run = root / run_path(*cells[-1])
        answer = {"prediction": ""} if name == silent else {}
        rows = [{"statistics": {"accuracy": [hit, 1]}, **answer} for hit in hits]
        write_jsonl(run / "evaluation/torch.predictions.jsonl", rows)
        curve = [
            {"loss": 0.0, "validation_loss": loss}
            for loss in (losses[name][number] if losses and name in losses else [1.0])
        ]
        write_jsonl(run / "train.jsonl", [{"loss": 0.0}, *curve])
        rank = {"weight_bytes": (memory or {}).get(name, 1), "gradient_bytes": 0, "optimizer_bytes": 0}
        spent = {"ranks": [rank] * (2 if name == "zero3" else 1), "seconds": 1.0, "train_tokens": 500}
        write_json(run / "resources.json", {**spent, "hardware": HARDWARE})
        kept = root / "models/model/base" if name == "base" else run
        write_json(kept / "manifest.json", {"files": {"model.safetensors": {"bytes": 100}}})
    scored = {"primary_metric": "accuracy", "higher_is_better": higher_is_better}
    recipe = {"scenarios": {"scenario": scored}, "cells": cells, "calibrated": []}
    return compare(Results(root, recipe | {"bootstrap_samples": 300, "confidence": 0.95}), "model", "scenario")


def pair(found: dict[str, Any], a: str, b: str) -> dict[str, float]:
    return next(one for one in found["pairs"] if (one["a"], one["b"]) == (a, b))


def test_measured_runs_that_are_equal_are_told_apart_by_the_state_of_all_ranks(tmp_path: Path) -> None:
    found = compared(tmp_path, {"zero3": 6, "lora": 10}, base=[WRONG], zero3=[RIGHT], lora=[RIGHT])
    assert (found["recommended"], found["equals"]) == ("lora", ["zero3", "lora"])
    assert found["not_better_than_base"] == []


def test_a_measured_run_that_is_clearly_best_is_recommended(tmp_path: Path) -> None:
    halves = [1.0] * 30 + [0.0] * 30
    assert compared(tmp_path, {"full": 9}, base=[[0.0] * 60], lora=[halves], full=[RIGHT])["recommended"] == "full"


def test_measured_runs_without_a_gain_are_all_named(tmp_path: Path) -> None:
    found = compared(tmp_path, base=[WRONG], lora=[WRONG])
    assert found["recommended"] is None
    assert found["not_better_than_base"] == ["lora"]
    nothing = {"a": "base", "b": "lora", "difference": 0, "ci_low": 0, "ci_high": 0, "decided_by": None}
    assert found["pairs"][0].items() >= nothing.items()


def test_of_a_metric_that_is_better_lower_the_lowest_is_recommended(tmp_path: Path) -> None:
    found = compared(tmp_path, {"full": 9}, None, False, base=[RIGHT], lora=[SOME], full=[[0.0] * 60])
    assert (found["recommended"], found["not_better_than_base"]) == ("full", [])
    assert compared(tmp_path, None, None, False, base=[WRONG], full=[RIGHT])["not_better_than_base"] == ["full"]


def test_a_value_is_the_mean_over_seeds_and_the_untuned_model_has_one(tmp_path: Path) -> None:
    found = compared(tmp_path, base=[WRONG], full=[RIGHT, SOME, WRONG])
    assert found["seeds"] == [1, 2, 3]
    assert found["values"]["full"]["value"] == pytest.approx((1 + 0.6 + 0.25) / 3)
    assert pair(found, "base", "full")["difference"] == pytest.approx(0.25 - (1 + 0.6 + 0.25) / 3)


def test_a_gain_that_one_seed_alone_has_is_not_called_one(tmp_path: Path) -> None:
    """Over rows it is certain; another seed might show none."""
    assert compared(tmp_path, base=[WRONG], full=[RIGHT])["recommended"] == "full"
    found = compared(tmp_path, base=[WRONG], full=[RIGHT, WRONG, WRONG])
    assert (found["recommended"], found["not_better_than_base"]) == (None, ["full"])


def test_an_interval_of_many_comparisons_is_wider_than_of_one(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    more = {f"t{n}": [list(random.integers(0, 2, 60).astype(float))] for n in range(6)}
    alone = pair(compared(tmp_path, base=[WRONG], full=[SOME]), "base", "full")
    together = pair(compared(tmp_path, base=[WRONG], full=[SOME], **more), "base", "full")
    assert together["difference"] == alone["difference"]
    assert together["ci_low"] < alone["ci_low"] < alone["ci_high"] < together["ci_high"]


def test_the_choice_on_validation_looks_at_the_last_loss_over_seeds_and_at_no_test_row(tmp_path: Path) -> None:
    # full is best on the test rows, and at its first epoch, and in its first seed.
    losses = {"full": [[0.1, 0.5], [0.1, 2.5]], "lora": [[3.0, 1.0], [3.0, 1.0]]}
    found = compared(tmp_path, None, losses, base=[SOME], full=[RIGHT] * 2, lora=[WRONG] * 2)
    assert found["chosen_on_validation"] == {
        "technique": "lora",
        "validation_losses": {"full": pytest.approx(1.5), "lora": pytest.approx(1.0)},
        "better_than_base": False,
    }
    assert compared(tmp_path, base=[WRONG], full=[RIGHT])["chosen_on_validation"]["better_than_base"]


def test_one_seed_tells_models_apart_and_no_techniques(tmp_path: Path) -> None:
    found = compared(tmp_path, base=[WRONG], lora=[SOME], full=[RIGHT])
    assert (found["claim"], found["recommended"]) == ("artifact", "full")
    assert "every other trained model" in found["reason"]
    told = {(one["a"], one["b"]): (one["claim"], one["withheld"], one["decided_by"]) for one in found["pairs"]}
    assert told == {
        ("base", "lora"): ("artifact", None, None),
        ("base", "full"): ("artifact", None, None),
        ("lora", "full"): ("artifact", "not decided: one seed", "seeds"),
    }
    assert difference(found, "full", "lora").verdict == "not decided: one seed"
    assert difference(found, "full", "base").verdict == "better"
    assert [artifact(found, name, 1).verdict for name in ("lora", "full")] == ["better", "better"]


def test_no_verdict_stands_on_empty_answers(tmp_path: Path) -> None:
    found = compared(tmp_path, base=[WRONG], lora=[SOME], full=[RIGHT], silent="full")
    assert (found["recommended"], found["not_better_than_base"]) == ("lora", ["full"])
    assert difference(found, "full", "base").verdict == "not decided: every answer is empty"
    assert artifact(found, "full", 1).verdict == "not decided: every answer is empty"
    assert artifact(found, "lora", 1).verdict == "better"


def test_over_seeds_a_technique_may_be_open_while_its_models_are_decided(tmp_path: Path) -> None:
    almost = [RIGHT[:-n] + [0.0] * n for n in (1, 2, 3)]
    found = compared(tmp_path, base=[WRONG], full=almost, lora=[RIGHT, WRONG, SOME])
    assert found["claim"] == "technique"
    assert ["base", "lora"] in found["undecided"]["seeds"]
    assert [artifact(found, "lora", seed).verdict for seed in (1, 2, 3)] == ["better", "no difference shown", "better"]
    assert more_seeds([found], 2) == {"model": {"scenario": {"full": [1, 2, 3, 4, 5], "lora": [1, 2, 3, 4, 5]}}}
    found["undecided"]["seeds"] = [["base", "lora"]]
    assert more_seeds([found], 1) == {"model": {"scenario": {"full": [1, 2, 3], "lora": [1, 2, 3, 4]}}}


def test_what_more_seeds_would_decide_is_an_overlay_of_the_experiment(tmp_path: Path) -> None:
    shown = {"model": "phi3-1m", "scenario": "classification", "seeds_of": {"lora": [1], "full": [1], "dora": [1]}}
    write_json(tmp_path / "found.json", [{**shown, "undecided": {"seeds": [["lora", "full"]], "rows": []}}])
    paths = ("--comparisons", tmp_path / "found.json", "--output", tmp_path / "more.yaml")
    run_script(sys.modules["more_seeds"], *paths)
    config = read_yaml(ROOT / "config/config.yaml")
    cells = set(Recipes(config | read_yaml(tmp_path / "more.yaml"), ROOT).cells) - set(Recipes(config, ROOT).cells)
    assert {cell[2:] for cell in cells} == {("lora", 2), ("lora", 3), ("full", 2), ("full", 3)}
    with pytest.raises(UserError, match="no finished run"):
        run_script(sys.modules["more_seeds"], "--comparisons", tmp_path / "none.json")


def test_techniques_may_have_different_numbers_of_seeds(tmp_path: Path) -> None:
    almost, shifted = ([RIGHT[:-n] + [0.0] * n for n in (1, 2, 3)], [SOME[n:] + SOME[:n] for n in (1, 2)])
    found = compared(tmp_path, base=[WRONG], once=[RIGHT], full=almost, lora=shifted)
    assert found["seeds_of"] == {"once": [1], "full": [1, 2, 3], "lora": [1, 2]}
    assert difference(found, "full", "lora").verdict == "better"
    assert difference(found, "once", "lora").verdict == "not decided: one seed"
    assert found["recommended"] == "full"


@pytest.mark.parametrize(("rows", "decided"), [(2, False), (19, False), (20, True)])
def test_below_twenty_rows_there_is_no_verdict(rows: int, decided: bool, tmp_path: Path) -> None:
    found = compared(tmp_path, base=[[0.0] * rows], full=[[1.0] * rows])
    assert (found["recommended"] == "full") == decided
    few = f"not decided: {rows} of the 20 test rows that a verdict takes"
    assert difference(found, "full", "base").verdict == ("better" if decided else few)
    assert found["values"]["full"]["ci_low"] < 1


def share_of_false_verdicts(seeds: int, experiments: int) -> tuple[float, float]:
    """Seven techniques that are equal, on 540 rows, whose accuracy varies by 0.03 from one training to the next.

    Returns the share of experiments in which some technique is called better than another, and in which some model
    would be, by the noise of rows alone.
    """
    random = np.random.default_rng(seeds)
    techniques = models = 0
    for _ in range(experiments):
        levels = {"base": [0.3], **{f"t{number}": 0.5 + random.normal(0, 0.03, seeds) for number in range(7)}}
        systems = {
            name: [np.stack([random.random(540) < level, np.ones(540)], axis=1).astype(float) for level in found]
            for name, found in levels.items()
        }
        pairs = [pair for pair in judge("accuracy", systems, 400, 0.95)[1] if pair.a != "base"]
        techniques += any(pair.told(False, True).verdict in ("better", "worse") for pair in pairs)
        models += any(pair.rows_ci_low > 0 or pair.rows_ci_high < 0 for pair in pairs)
    return techniques / experiments, models / experiments


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_equal_techniques_are_seldom_called_different_however_many_seeds(seeds: int) -> None:
    """By rows alone, as if models were techniques, some false winner is found in most experiments."""
    techniques, models = share_of_false_verdicts(seeds, 60)
    assert techniques <= (0.05 if seeds > 1 else 0)
    assert models >= 0.4
