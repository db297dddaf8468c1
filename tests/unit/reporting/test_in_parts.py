"""An experiment in parts: every run is in one part, and the table says what it was made from."""

from pathlib import Path

import pytest
from support.measurements import save_experiment

import in_parts
from in_parts import Parts, part_of, table
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json, write_text

EXPERIMENT = """
models: [phi3-1m]
scenarios: [classification]
techniques: [lora, peft-ia3]
seeds: [1, 2, 3]
"""


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
            {**read_json(path), "recipe": {**recipe, "code": str(seed), "start_digests": {}}, "inputs": {"base": "a"}},
        )
    return found


def test_every_run_is_in_one_part_and_parts_take_about_as_long() -> None:
    found = Parts(in_parts.ROOT / "config/experiments/smollm2-table.yaml", Path("kept"))
    cut = [found.part(k, 8) for k in range(1, 9)]
    assert sorted(cell for own in cut for cell in own) == sorted(found.cells)
    assert max(sum(map(found.minutes, own)) for own in cut) < 100
    assert {cell[3] for cell in cut[0]} == {0, 1}


@pytest.mark.parametrize("text", ["9/8", "0/8", "a", "1", "1/0", "-1/8"])
def test_a_part_that_there_is_not_gets_one_message(text: str) -> None:
    with pytest.raises(UserError, match=rf"PART={text}: expected a part"):
        part_of(text)


def test_the_table_is_made_from_the_runs_that_are_there_and_names_the_missing(parts: Parts) -> None:
    results = parts.experiment.parent / "results"
    with pytest.raises(UserError, match=r"no part of .* has been run: run one first"):
        table(parts, 2)
    one = {cell for k in (1, 2) for cell in parts.part(k, 3)}
    for cell in one:
        parts.keep(cell, results)
    before = {path: path.read_bytes() for path in parts.directory.iterdir()}
    text = table(parts, 3)
    missing = ", ".join(f"{scenario} {technique} {seed}" for _, scenario, technique, seed in parts.part(3, 3))
    assert f"**Incomplete**: {len(one)} of 7 runs are finished. Missing, by part: 3/3 ({missing})." in text
    for cell in parts.cells:
        parts.keep(cell, results)
    assert before.items() <= {path: path.read_bytes() for path in parts.directory.iterdir()}.items()
    text = table(parts, 3)
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
        parts.keep(cell, results)
    with pytest.raises(UserError, match=f"lora.2.tar.xz: made with another .*{named}.* run its part again"):
        table(parts, 2)


def test_an_export_of_another_recipe_is_refused(parts: Parts) -> None:
    results = parts.experiment.parent / "results"
    path = results / "runs/phi3-1m/classification/lora/seed-1/onnx/int8/manifest.json"
    recipe = parts.matrix.export_recipe("int8")
    for options in (recipe["options"], recipe["options"] | {"per_channel": False}):
        write_json(path, read_json(path) | {"recipe": {**recipe, "options": options, "code": "1"}})
        for cell in parts.cells:
            parts.keep(cell, results)
        if options == recipe["options"]:
            table(parts, 2)
    with pytest.raises(
        UserError, match=r"lora\.1\.tar\.xz: its int8 was made with another options than config/exports"
    ):
        table(parts, 2)
