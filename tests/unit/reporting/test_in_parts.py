"""An experiment in parts: every run is in one part, and the table says what it was made from."""

from pathlib import Path
from typing import Any

import pytest
from support.measurements import save_experiment

import in_parts
from in_parts import part_of, run, table
from parts import LONGEST, Parts
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json, write_jsonl, write_text

EXPERIMENT = """
models: [phi3-1m]
scenarios: [classification]
techniques: [lora, peft-ia3]
seeds: [1, 2, 3]
"""


EXPERIMENTS = Path(in_parts.ROOT / "config/experiments")
MADE = {"commit": "abc", "recipes": {}, "inputs": {"results/data": "a"}}


def keep_all(parts: Parts, **changed: Any) -> None:
    """Archive every run, each evaluated as its experiment says; ``changed`` is of the second seed of LoRA."""
    for cell in parts.cells:
        run = parts.folder(cell)
        asked = parts.matrix.evaluation_recipe(cell[1]) | {"code": "1", "environment": "1"}
        torch = asked | parts.matrix.evaluated_with
        own = {one: torch if one == "torch" else asked for one in parts.backends(cell)}
        made = {**MADE, "recipes": {f"{run}/evaluation/{one}.json": recipe for one, recipe in own.items()}}
        if cell[2:] == ("lora", 2):
            recipes = {name: recipe | changed.get("recipe", {}) for name, recipe in made["recipes"].items()}
            made |= {"recipes": recipes} | {key: value for key, value in changed.items() if key != "recipe"}
        parts.keep(cell, made, parts.experiment.parent / "results")


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """An experiment, and results of it in results/."""
    write_text(tmp_path / "experiment.yaml", EXPERIMENT)
    skills = {"base": 0.2, "lora": 0.6, "peft-ia3": 0.3}
    found = Parts(tmp_path / "experiment.yaml", tmp_path / "kept")
    results = tmp_path / "results"
    save_experiment(results, skills, ["classification"], [1, 2, 3], ["fp32", "int8", "int4"])
    for folder in ("runs", "models"):
        (results / folder / "tiny").rename(results / folder / "phi3-1m")
    for _, scenario, technique, seed in found.cells[1:]:
        path = results / f"runs/phi3-1m/{scenario}/{technique}/seed-{seed}/manifest.json"
        recipe = found.matrix.training_recipe("phi3-1m", technique, seed)
        write_json(
            path,
            {**read_json(path), "recipe": {**recipe, "code": "1", "start_digests": {}}, "inputs": {"base": "a"}},
        )
    return found


@pytest.mark.parametrize("name", ["smollm2-table", "smollm2-tune", "peft-methods", "peft-ranking"])
def test_every_run_is_in_one_part_of_at_most_eighty_minutes(name: str) -> None:
    found = Parts(EXPERIMENTS / f"{name}.yaml", Path("kept"))
    cut = [found.part(k) for k in range(1, found.count + 1)]
    assert sorted(cell for own in cut for cell in own) == sorted(found.cells)
    assert max(sum(map(found.minutes, own)) for own in cut) <= LONGEST
    assert len({found.archive(cell) for cell in found.cells}) == len(found.cells)
    if name == "smollm2-table":
        assert {cell[3] for cell in found.cells} - {cell[3] for own in cut[:2] for cell in own} == {3}


@pytest.mark.parametrize("text", ["9/8", "0/8", "a", "1", "1/0", "-1/8"])
def test_a_part_that_there_is_not_gets_one_message(text: str) -> None:
    with pytest.raises(UserError, match=rf"PART={text}: expected a part"):
        part_of(text)


def test_the_table_is_made_from_the_runs_that_are_there_and_names_the_missing(parts: Parts) -> None:
    results = parts.experiment.parent / "results"
    with pytest.raises(UserError, match=r"no part of .* has been run: run one first"):
        table(parts)
    parts.count = 3
    one = {cell for k in (1, 2) for cell in parts.part(k)}
    for cell in one:
        parts.keep(cell, MADE, results)
    before = {path: path.read_bytes() for path in parts.directory.iterdir()}
    text = table(parts)
    missing = ", ".join(map(parts.name, parts.part(3)))
    assert f"**Incomplete**: {len(one)} of 7 runs are finished. Missing, by part: 3/3 ({missing})." in text
    for cell in parts.cells:
        parts.keep(cell, MADE, results)
    assert before.items() <= {path: path.read_bytes() for path in parts.directory.iterdir()}.items()
    text = table(parts)
    assert "Incomplete" not in text
    assert "| `lora` | 3 |" in text
    assert "The smallest detectable difference" in text
    assert "over rows and seeds" in text


@pytest.mark.parametrize(
    ("changed", "named"), [({"recipe": {"learning_rate": 1}}, "learning_rate"), ({"inputs": {"base": "b"}}, "base")]
)
def test_a_run_of_another_recipe_or_other_inputs_is_refused(
    parts: Parts, changed: dict[str, object], named: str
) -> None:
    results = parts.experiment.parent / "results"
    path = results / "runs/phi3-1m/classification/lora/seed-2/manifest.json"
    content = read_json(path)
    write_json(path, content | {key: content[key] | value for key, value in changed.items()})  # type: ignore[operator]
    for cell in parts.cells:
        parts.keep(cell, {"commit": "abc", "recipes": {}}, results)
    with pytest.raises(UserError, match=f"lora.2.tar.xz: made with another .*{named}.* run part 1/1 again"):
        table(parts)


def test_an_export_of_another_recipe_is_refused(parts: Parts) -> None:
    results = parts.experiment.parent / "results"
    path = results / "runs/phi3-1m/classification/lora/seed-1/onnx/int8/manifest.json"
    recipe = parts.matrix.export_recipe("int8")
    for options in (recipe["options"], recipe["options"] | {"per_channel": False}):
        write_json(path, read_json(path) | {"recipe": {**recipe, "options": options, "code": "1"}})
        for cell in parts.cells:
            parts.keep(cell, MADE, results)
        if options == recipe["options"]:
            table(parts)
    with pytest.raises(
        UserError, match=r"lora\.1\.tar\.xz: made with another options of export int8 than .*run part 1/1 again"
    ):
        table(parts)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"recipe": {"max_new_tokens": 7}}, "max_new_tokens of evaluation torch"),
        ({"recipe": {"precision": "bf16"}}, "precision of evaluation torch"),
        ({"recipe": {"share_prompts": False}}, "share_prompts of evaluation torch"),
        ({"inputs": {"results/data": "b"}}, "results/data"),
    ],
)
def test_a_run_that_was_evaluated_otherwise_is_refused(parts: Parts, changed: dict[str, Any], named: str) -> None:
    keep_all(parts)
    table(parts)
    keep_all(parts, **changed)
    told = rf"lora\.2\.tar\.xz: made with another {named} than .*: delete it and run part 1/1 again"
    with pytest.raises(UserError, match=told):
        table(parts)
    with pytest.raises(UserError, match=told):
        run(parts, parts.cells, [])


def test_what_no_table_shows_may_differ(parts: Parts) -> None:
    keep_all(parts, recipe={"speed_prompts": 99, "gate": "warn"})
    assert "versions of the code" not in table(parts)


def test_another_code_is_told_below_the_table_with_its_commits(parts: Parts) -> None:
    keep_all(parts, recipe={"code": "2"}, commit="def")
    text = table(parts)
    assert "Made by different versions of the code or its packages:" in text
    assert "evaluation: abc (classification base 0, classification lora 1," in text
    assert "def (classification lora 2)" in text


def test_runs_of_long_seeds_have_archives_of_their_own(tmp_path: Path) -> None:
    write_text(tmp_path / "experiment.yaml", EXPERIMENT.replace("[1, 2, 3]", "[20240101, 20240102]"))
    parts = Parts(tmp_path / "experiment.yaml", tmp_path / "kept")
    assert len({parts.archive(cell) for cell in parts.cells}) == len(parts.cells)


def test_a_run_that_is_there_is_not_made_again(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    keep_all(parts)
    run(parts, parts.cells, ["--no-such-option"])
    assert "stored 7 of the part's 7 runs" in capsys.readouterr().out


def test_rates_are_chosen_from_the_trainings_that_are_there(tmp_path: Path) -> None:
    grid = "learning_rate_grid: [0.0001, 0.001, 0.01]\n"
    write_text(
        tmp_path / "tuned.yaml", EXPERIMENT.replace("[1, 2, 3]", "[1]\nprecisions: []\ntraining: {epochs: 1}") + grid
    )
    found = Parts(tmp_path / "tuned.yaml", tmp_path / "kept")
    results = tmp_path / "results"
    losses = {"lora": [2.0, 1.0, 1.05], "peft-ia3": [3.0, 2.0, 1.0]}
    for cell in found.cells:
        curve, resources = (results / name for name in found.kept(cell))
        write_jsonl(curve, [{"step": 1}, {"validation_loss": losses[cell[2]][cell[3]], "tokens": 9000}])
        write_json(resources, {})
        recipe = found.matrix.training_recipe("phi3-1m", cell[2], 1, found.rates[cell[3]])
        if cell[2:] != ("peft-ia3", 0):
            found.keep(cell, {**MADE, "recipes": {f"{found.folder(cell)}/train.jsonl": recipe}}, results)
    text = table(found)
    assert "| technique | 0.0001 | 0.001 | 0.01 |" in text
    assert "| `lora` | 2.000 | **1.000** | 1.050 |" in text
    assert "| `peft-ia3` | – | 2.000 | **1.000** |" in text
    assert "At the end of the grid: peft-ia3; widen it" in text
    assert "5 of 6 runs are finished. Missing, by part: 1/1 (classification peft-ia3 0.0001)." in text
    cell = found.cells[0]
    wrong = found.matrix.training_recipe("phi3-1m", "lora", 1, 0.5)
    found.keep(cell, {**MADE, "recipes": {f"{found.folder(cell)}/train.jsonl": wrong}}, results)
    with pytest.raises(UserError, match=r"lora\.0\.0001\.tar\.xz: made with another learning_rate of training than"):
        table(found)
