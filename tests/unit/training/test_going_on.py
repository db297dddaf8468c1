"""Training goes on from an adapter of the same base, method and options; any other is refused before it runs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file
from support.measurements import run_script
from support.models import tiny_phi3
from support.training_runs import REPOSITORY, command, recipe_of, write_inputs

import train
from snaketune.config.model import Model
from snaketune.config.started_adapters import check_start
from snaketune.config.technique import Technique
from snaketune.config.validation import validated
from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml, write_json
from snaketune.dag.job_params import JobParams
from snaketune.platforms.registry import read_matrix

pytestmark = pytest.mark.usefixtures("one_thread")
MODEL = Model.model_construct(hub="owner/name")


def trained(inputs: Path, out: Path, recipe: dict[str, Any], *options: object) -> dict[str, Any]:
    run_script(train, *command(inputs, out, recipe)[1:], *options)
    return load_file(out / "run/adapter/adapter_model.safetensors")


def test_training_goes_on_from_an_adapter_of_the_same_base(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    still = recipe_of("lora", epochs=1, learning_rate=1e-12, warmup_share=0.0)
    first = trained(tmp_path, tmp_path / "first", recipe_of("lora", epochs=1))
    files = sorted((tmp_path / "first/run/adapter").iterdir())
    again = trained(tmp_path, tmp_path / "again", still, "--start-from", *files)
    assert all((again[name] - tensor).abs().max() < 1e-6 for name, tensor in first.items())
    assert max(tensor.abs().max() for name, tensor in first.items() if "lora_B" in name) > 1e-3

    with pytest.raises(UserError, match=r"adapter_model\.safetensors has changed since the job was planned"):
        planned = {**still, "start_digests": {str(files[1]): "0" * 64}}
        trained(tmp_path, tmp_path / "changed", planned, "--start-from", *files)
    with pytest.raises(UserError, match=r"an adapter of another base or rank: .*size mismatch"):
        wider = {**still, "adapter": {"type": "lora", "options": {**still["adapter"]["options"], "r": 4}}}
        trained(tmp_path, tmp_path / "wider", wider, "--start-from", *files)
    damaged = tmp_path / "damaged/adapter_model.safetensors"
    damaged.parent.mkdir()
    damaged.write_bytes(b"x")
    with pytest.raises(UserError, match=r"adapter_model.safetensors is damaged"):
        trained(tmp_path, tmp_path / "none", still, "--start-from", damaged)
    # The same shapes, other weights.
    tiny_phi3(128, initializer_range=0.2).save_pretrained(tmp_path / "base")
    manifest.record(
        tmp_path / "base", {}, [], sorted(path for path in (tmp_path / "base").iterdir() if "json" not in path.suffix)
    )
    with pytest.raises(UserError, match="made from another base than"):
        trained(tmp_path, tmp_path / "other", still, "--start-from", *files)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (None, r"start_from: a/adapter_.*: no such file; expected an adapter directory"),
        ({"peft_type": "VERA"}, "a has type: vera, but this technique has type: lora"),
        ({"r": 16}, "a has r: 16, but this technique has r: 8"),
        ({"target_modules": ["o_proj"]}, "has target_modules: .'o_proj'., but this"),
        ({"base_model_name_or_path": "owner/other"}, "trained on owner/other, not on mine"),
        ({"base_model_name_or_path": "results/models/other/base"}, "trained on results/models/other/base, not on mine"),
        ({"base_model_name_or_path": "Owner/name", "lora_dropout": 0.5, "target_modules": ["down_proj", "o_proj"]}, ""),
    ],
)  # fmt: skip
def test_an_adapter_that_is_no_start_is_refused_in_the_plan(
    there: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    adapter = {"type": "lora", "options": {"r": 8, "lora_dropout": 0.0, "target_modules": ["o_proj", "down_proj"]}}
    if there is not None:
        write_json(tmp_path / "a/adapter_config.json", {"peft_type": "LORA", **adapter["options"], **there})
        (tmp_path / "a/adapter_model.safetensors").write_bytes(b"")
    if not message:
        return check_start("t.yaml: start_from", tmp_path, "a", adapter, {"mine": MODEL})
    with pytest.raises(UserError, match=message):
        check_start("t.yaml: start_from", tmp_path, "a", adapter, {"mine": MODEL})


@pytest.mark.parametrize(
    "adapter", [None, {"type": "prefix", "options": {}}, {"type": "lora", "options": {"init_lora_weights": "pissa"}}]
)
def test_what_changes_the_base_or_has_no_adapter_has_no_start(adapter: Any) -> None:
    content = json.loads(json.dumps({"description": "d", "learning_rate": 1, "adapter": adapter, "start_from": "a"}))
    with pytest.raises(UserError, match="start_from needs an adapter on an unchanged base"):
        validated(Technique, content, "t.yaml")


def test_another_adapter_at_its_place_trains_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = read_yaml(REPOSITORY / "config/techniques/peft-ia3.yaml") | {"start_from": "a"}
    write_json(tmp_path / "config/techniques/mine.yaml", content)
    write_json(tmp_path / "a/adapter_config.json", {"peft_type": "IA3"})
    (tmp_path / "a/adapter_model.safetensors").write_bytes(b"one")
    experiment = read_yaml(REPOSITORY / "config/config.yaml") | {"techniques": ["mine", "peft-ia3"]}
    params = JobParams(read_matrix(experiment, Path(), REPOSITORY), REPOSITORY)
    cell = SimpleNamespace(model="phi3-1m", technique="mine", seed="1")
    before = params.training(cell)
    (tmp_path / "a/adapter_model.safetensors").write_bytes(b"another")
    assert params.training(cell) != before
    assert "start" not in params.training(SimpleNamespace(model="phi3-1m", technique="peft-ia3", seed="1"))
