"""A cell of the published table says yes or no only where a measurement shows it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.measurements import (
    HARDWARE,
    METRICS,
    MIB,
    Recipe,
    resources,
    run_script,
    save_experiment,
    save_properties,
    table_recipe,
)

import summarize
import write_technique_table
from snaketune.config.claims import COLUMNS, ROWS, claimed, shown
from snaketune.config.matrix import Matrix
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_yaml, write_json
from snaketune.dag.recipes import Recipes

ROOT = Path(__file__).parents[3]
TECHNIQUES = ["full", *COLUMNS.values()]
SHIPPED = read_yaml(ROOT / "config/config.yaml") | read_yaml(ROOT / "config/experiments/published-table.yaml")
SKILLS = {"base": 0.3, **dict.fromkeys(TECHNIQUES, 0.8), "peft-ia3": 0.31}


def table(results: Path, recipe: Recipe) -> dict[str, Any]:
    output = results / "technique_table.json"
    run_script(write_technique_table, "--recipe", json.dumps(recipe), "--results", results, "--output", output)
    found: dict[str, Any] = read_json(output)
    return found


def cell(found: dict[str, Any], row: str, column: str) -> dict[str, Any]:
    cells = next(one["cells"] for one in found["rows"] if one["id"] == row)
    return next(one for one in cells if one["column"] == column)


def verdicts(found: dict[str, Any], row: str) -> list[str]:
    return [cell(found, row, column)["measured"] for column in COLUMNS]


def compared(
    results: Path,
    scenarios: list[str],
    change: Callable[[list[Any]], object] = id,
    seeds: tuple[int, ...] = (1,),
    techniques: list[str] = TECHNIQUES,
) -> dict[str, Any]:
    """The table of scenarios alone; ``change`` edits comparisons.json as the workflow makes it."""
    recipe = save_experiment(results, SKILLS, scenarios, [*seeds])
    outputs = [f"--{name}={results}/{name}.json" for name in ("summary", "comparisons", "metrics")]
    run_script(summarize, "--recipe", json.dumps(recipe), "--results", results, *outputs)
    comparisons = read_json(results / "comparisons.json")
    change(comparisons)
    write_json(results / "comparisons.json", comparisons)
    return table(results, table_recipe(scenarios, techniques, rounds=0))


def properties(results: Path, rounds: int = 3, **changed: dict[tuple[int, int], Recipe]) -> dict[str, Any]:
    """The table of short runs alone: techniques are equal to full but where they are changed."""
    write_json(results / "comparisons.json", [])
    recipe = table_recipe([], TECHNIQUES, rounds)
    save_properties(results, recipe, **changed)
    return table(results, recipe)


def test_the_claims_are_the_published_ones_cell_by_cell() -> None:
    told = {key: ["".join(claimed(row, c)[which][0] for c in COLUMNS) for which in ("published", "corrected")] for key, row in ROWS.items()}  # fmt: skip
    everything = ["yyyyyy", "yyyyyy"]
    assert told == {
        **dict.fromkeys(("adapt", "nlp", "qa", "chat", "music"), everything),
        "cost": ["yynyyn", "yyyyyy"],
        "memory": ["nynyyy", "yyyyyy"],
        "parameters": ["nyynny", "yyynny"],
        "aggregate": ["nnnyyy", "nnnyyn"],
    }


def test_a_verdict_that_is_withheld_is_neither_yes_nor_no(tmp_path: Path) -> None:
    def withhold(comparisons: list[Any]) -> None:
        for pair in (pair for seen in comparisons for pair in seen["pairs"] if "lora" in (pair["a"], pair["b"])):
            pair["withheld"] = "not decided: one seed"

    found = cell(compared(tmp_path, ["chat"], withhold), "chat", "LoRA")
    assert (found["measured"], found["why"]) == ("not-measured", "chat: not decided: one seed")


def test_a_capability_is_yes_where_the_interval_excludes_zero_and_no_where_it_doesnt(tmp_path: Path) -> None:
    found = compared(tmp_path, list(METRICS))
    expected = ["no" if name == "peft-ia3" else "yes" for name in COLUMNS.values()]
    for row in ("adapt", "nlp", "qa", "chat", "music"):
        assert verdicts(found, row) == expected, row
    assert found["counts"] == {"yes": 25, "no": 5, "not-measured": 24}
    gain = cell(found, "adapt", "LoRA")["evidence"][0]
    # Perplexity: better is lower.
    assert gain["unit"] == "perplexity"
    assert gain["interval"][0] < gain["figure"] < gain["interval"][1] < 0
    assert (gain["n"], gain["seeds"], gain["runs"]) == (120, [1], ["runs/tiny/domain/lora/seed-1"])


def test_a_gain_on_the_wrong_side_is_no(tmp_path: Path) -> None:
    found = compared(tmp_path, ["qa"], lambda comparisons: comparisons[0].update(higher_is_better=False))
    assert "yes" not in verdicts(found, "qa")


def test_nlp_needs_all_three_scenarios(tmp_path: Path) -> None:
    found = cell(compared(tmp_path, ["classification", "ner"]), "nlp", "LoRA")
    assert (found["measured"], len(found["evidence"])) == ("not-measured", 2)
    assert "translation" in found["why"]


def test_nlp_is_no_where_one_of_three_shows_no_gain(tmp_path: Path) -> None:
    def widen(comparisons: list[Any]) -> None:
        for pair in comparisons[1]["pairs"]:
            pair.update(ci_low=-1, ci_high=1)

    assert set(verdicts(compared(tmp_path, ["classification", "ner", "translation"], widen), "nlp")) == {"no"}


def test_what_the_experiment_lacks_is_not_measured_and_says_why(tmp_path: Path) -> None:
    found = compared(tmp_path, ["qa"], seeds=(1, 2), techniques=["lora"])
    assert cell(found, "qa", "LoRA")["evidence"][0]["seeds"] == [1, 2]
    whys = {row: cell(found, row, "LoRA")["why"] for row in ("adapt", "cost")}
    assert "domain" in whys["adapt"]
    assert "properties" in whys["cost"]
    assert "dora" in cell(found, "qa", "DoRA")["why"]


def test_of_several_models_the_first_counts(tmp_path: Path) -> None:
    found = compared(tmp_path, ["qa"], lambda seen: seen.insert(0, {**seen[0], "model": "another", "pairs": []}))
    assert (found["model"], cell(found, "qa", "LoRA")["measured"]) == ("tiny", "yes")


def rounds(*found: Recipe, ranks: int = 1) -> dict[tuple[int, int], Recipe]:
    return {(ranks, number + 1): one for number, one in enumerate(found)}


def test_cost_is_less_only_if_it_is_in_every_round(tmp_path: Path) -> None:
    quick, slow = resources(5.0), resources(10.5)
    found = properties(tmp_path, lora=rounds(quick, quick, resources(6.0)), dora=rounds(quick, slow, quick))
    assert [cell(found, "cost", column)["measured"] for column in ("LoRA", "DoRA", "QLoRA")] == ["yes", "no", "no"]
    figure = cell(found, "cost", "LoRA")["evidence"][0]
    assert (figure["figure"], figure["interval"], figure["n"]) == (0.5, [0.5, 0.6], 3)
    assert "properties/full/ranks-1/round-1" in figure["runs"]


def test_cost_counts_the_cores_of_every_rank(tmp_path: Path) -> None:
    """Two ranks that take 0.6 of the time occupy 1.2 of the cores."""
    found = properties(tmp_path, zero3=rounds(*[resources(6.0, ranks=2)] * 3, ranks=2))
    assert cell(found, "cost", "ZeRO")["measured"] == "no"
    assert cell(found, "cost", "ZeRO")["evidence"][0]["figure"] == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("state", "grown", "expected"),
    [(200, 800, "yes"), (300, 800, "no"), (200, 900, "no"), (400, 800, "no")],
    ids=["both less", "equal state", "equal peak", "more state"],
)
def test_memory_is_less_only_if_both_peak_and_state_are(state: int, grown: int, expected: str, tmp_path: Path) -> None:
    found = properties(tmp_path, lora=rounds(*[resources(state=state * MIB, grown=grown * MIB)] * 3))
    assert cell(found, "memory", "LoRA")["measured"] == expected
    held = {one["name"]: one for one in cell(found, "memory", "LoRA")["evidence"]}
    assert held["optimizer bytes of that rank"]["value"] == state * MIB // 3
    assert held["weights + gradients + optimizer states of a rank"]["figure"] == pytest.approx(state / 300, abs=1e-6)


def test_memory_counts_the_largest_rank(tmp_path: Path) -> None:
    small = resources(state=150 * MIB, grown=500 * MIB, ranks=2)
    large = {**small, "ranks": [small["ranks"][0], resources(grown=950 * MIB)["ranks"][0]]}  # type: ignore[index]
    assert cell(properties(tmp_path, zero3=rounds(*[small] * 3, ranks=2)), "memory", "ZeRO")["measured"] == "yes"
    assert cell(properties(tmp_path, zero3=rounds(*[large] * 3, ranks=2)), "memory", "ZeRO")["measured"] == "no"


@pytest.mark.parametrize(("gpu", "state", "expected"), [(False, 400, "yes"), (False, 500, "no"), (True, 400, "no")])
def test_offload_is_judged_by_what_would_stay_on_a_gpu_where_there_is_none(
    gpu: bool, state: int, expected: str, tmp_path: Path
) -> None:
    """Of equal thirds, weights and gradients stay: of 400 MiB 267, fewer than all of full's 300."""
    machine = {"hardware": {**HARDWARE, "gpu": gpu}}
    runs = {
        "deepspeed": rounds(*[resources(state=state * MIB, grown=1000 * MIB) | machine] * 3),
        "full": rounds(*[resources() | machine] * 3),
    }
    found = cell(properties(tmp_path, **runs), "memory", "DeepSpeed")
    assert (found["measured"], found["why"]) == (expected, None)
    deciding = [one["name"].partition(",")[0] for one in found["evidence"] if one["decides"]]
    assert (deciding == ["weights + gradients of a rank"]) == (not gpu)


def test_runs_of_different_machines_are_not_compared(tmp_path: Path) -> None:
    moved = resources(1.0, state=MIB, grown=MIB) | {"hardware": {**HARDWARE, "processor": "another"}}
    found = properties(tmp_path, lora=rounds(resources(1.0), moved, moved))
    for row in ("cost", "memory"):
        assert cell(found, row, "LoRA")["measured"] == "not-measured"
        assert "different machines" in cell(found, row, "LoRA")["why"]


def test_parameters_are_fewer_only_if_fewer_than_fulls(tmp_path: Path) -> None:
    found = properties(tmp_path, lora=rounds(*[resources(trainable=8)] * 3))
    assert verdicts(found, "parameters") == ["yes", "no", "no", "no", "no", "no"]
    assert "0.8 %" in cell(found, "parameters", "LoRA")["evidence"][0]["text"]


@pytest.mark.parametrize("held", [(300, 200, 150), (300, 150, 150), (300, 300, 150)])
def test_sharing_must_shrink_what_a_rank_holds_at_every_doubling(held: tuple[int, ...], tmp_path: Path) -> None:
    runs = {(ranks, 1): resources(state=state * MIB, ranks=ranks) for ranks, state in zip((1, 2, 4), held, strict=True)}
    found = cell(properties(tmp_path, zero3=runs), "aggregate", "ZeRO")
    assert found["measured"] == ("yes" if held[0] > held[1] > held[2] else "no")
    assert [one["figure"] for one in found["evidence"]] == pytest.approx([held[1] / held[0], held[2] / held[1]])


def test_each_contradiction_of_the_page_is_listed_with_its_figures(tmp_path: Path) -> None:
    found = properties(tmp_path, lora=rounds(*[resources(trainable=8)] * 3))
    of_lora = {one["row"]: one for one in found["disagreements"] if one["column"] == "LoRA"}
    # Published no, corrected to yes, measured yes.
    assert of_lora["parameters"]["differs_from"] == ["published"]
    # Published and corrected yes, measured no.
    assert of_lora["cost"]["differs_from"] == ["published", "corrected"]
    assert "core-seconds per token: 1 [1, 1]" in of_lora["cost"]["figures"][0]
    # Published no, corrected to yes, measured no.
    assert of_lora["memory"]["differs_from"] == ["corrected"]
    assert "aggregate" not in of_lora
    assert shown(cell(found, "cost", "LoRA")) == "no (page: yes)"
    assert shown(cell(found, "parameters", "LoRA")) == "yes (page: no, since corrected)"
    assert shown(cell(found, "memory", "LoRA")) == "no (page: no, now yes)"
    assert shown(cell(found, "aggregate", "LoRA")) == "no"
    assert shown(cell(found, "adapt", "LoRA")) == "not measured"


def test_a_difference_that_the_estimate_expects_to_vanish_is_called_that(tmp_path: Path) -> None:
    """Measured no; the page says yes now, and so does the estimate for a larger model."""
    large = {"model": "Large", "verdict": "yes", "text": "half of full"}
    write_json(tmp_path / "comparisons.json", [])
    recipe = table_recipe([], TECHNIQUES, expected={"memory": dict.fromkeys(TECHNIQUES, large)})
    save_properties(tmp_path, recipe, lora=rounds(*[resources(state=200 * MIB, grown=800 * MIB)] * 3))
    found = table(tmp_path, recipe)
    assert shown(cell(found, "memory", "DoRA")) == "no (page: yes; yes expected with Large)"
    assert shown(cell(found, "memory", "PEFT")) == "no (page: no, now yes; yes expected with Large)"
    # Measured yes, published no: the estimate agrees with the measurement.
    assert shown(cell(found, "memory", "LoRA")) == "yes (page: no, since corrected)"
    told = {one["column"]: one["vanishes"] for one in found["disagreements"] if one["row"] == "memory"}
    assert told == {"LoRA": None} | dict.fromkeys(
        ("DoRA", "PEFT", "QLoRA", "ZeRO"), "expected to vanish with Large: half of full"
    )
    assert cell(found, "memory", "DoRA")["scale"].startswith("large; a processor, 2 cores; peak of a rank beyond")
    assert cell(found, "memory", "ZeRO")["scale"].startswith("large; a processor, 2 cores, 2 ranks; peak of a rank")


def test_at_the_size_that_people_tune_adapters_need_less_memory_than_full() -> None:
    found = Recipes(SHIPPED, ROOT).table_recipe()["expected"]["memory"]
    told = {name: one["verdict"] for name, one in found.items()}
    assert told == {"full": "no", **dict.fromkeys(COLUMNS.values(), "yes")}
    assert "(3.8 billion parameters, rows of 512 tokens" in found["dora"]["text"]


def test_the_shipped_experiment_fills_every_cell_and_its_runs_are_interleaved() -> None:
    matrix = Matrix(SHIPPED, ROOT)
    assert {name for row in ROWS.values() for name in row.scenarios} <= set(matrix.experiment.scenarios)
    own = matrix.property_runs[:7]
    assert [run[0] for run in own] == TECHNIQUES
    assert matrix.property_runs[7:14] == [(name, ranks, 2) for name, ranks, _ in own]
    assert len(set(matrix.property_runs)) == 7 * 3 + 7 * 2


def test_a_property_run_differs_from_a_training_run_only_in_length_and_ranks() -> None:
    matrix = Recipes(SHIPPED, ROOT)
    trained, short = matrix.training_recipe("phi3-36m", "zero3", 1), matrix.property_recipe("zero3", 4)
    changed = {key: value for key, value in short.items() if trained.get(key) != value}
    assert changed == {"epochs": 1, "steps": 4, "world_size": 4, "keep_weights": False}


@pytest.mark.parametrize(
    ("ranks", "changed", "words"),
    [([1, 3], {}, "must be twice the one before"), ([1, 2], {"techniques": ["lora"]}, "add full to techniques")],
)
def test_ranks_of_the_properties_must_double_and_full_be_there(
    ranks: list[int], changed: dict[str, Any], words: str
) -> None:
    properties = {"model": "phi3-36m", "scenario": "domain", "ranks": ranks}
    with pytest.raises(UserError, match=words):
        Matrix(read_yaml(ROOT / "config/config.yaml") | changed | {"properties": properties}, ROOT)
