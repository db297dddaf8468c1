"""Olive itself trains a project of AI Toolkit."""

import os
import subprocess
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from support.environments import installed
from support.models import tiny_phi3
from support.olive_projects import LAYERS, project, recipe, save_results, tokenizer

from snaketune.core.files import read_json
from snaketune.core.layout import MODEL_FILES
from snaketune.core.locks import pins
from snaketune.core.manifest import record
from snaketune.platforms.olive.project import LOCKED, OLIVE

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def olive_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that a project asks for."""
    directory = tmp_path_factory.mktemp("olive")
    pinned = pins(ROOT / "envs/train/requirements.txt", LOCKED)
    return installed(directory, "".join(f"{line}\n" for line in [*pinned, OLIVE]))


def test_olive_trains_a_project_to_an_adapter_of_the_recipe(tmp_path: Path, olive_python: Path) -> None:
    results, technique = save_results(tmp_path), "qlora"
    base = results / "base"
    # On CPUs with AVX512-BF16, bitsandbytes needs blocks of 64 inputs to evaluate nf4 layers.
    tiny_phi3(128, hidden_size=64).save_pretrained(base)
    tokenizer().save_pretrained(base, save_jinja_files=False)
    record(base, {}, [], [base / name for name in MODEL_FILES])
    out = project(results, technique)
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(results / "hub")}
    command = [str(olive_python), str(out / "finetuning/invoke_olive.py")]
    ran = subprocess.run(command, env=offline, cwd=results, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    [adapter] = (out / "models" / technique).rglob("adapter_config.json")
    made, asked = read_json(adapter), recipe(technique)["adapter"]["options"]
    assert {key: made[key] for key in ("r", "lora_alpha", "use_dora")} == {
        key: asked[key] for key in ("r", "lora_alpha", "use_dora")
    }
    assert {name.rsplit(".", 1)[-1] for name in made["target_modules"]} == set(LAYERS)
    trained = load_file(adapter.with_name("adapter_model.safetensors"))
    assert all(weights.any() for name, weights in trained.items() if "lora_B" in name)
    told = subprocess.run(
        [str(olive_python), str(out / "inference/console_chat.py"), "ab"],
        **{"env": offline, "cwd": results, "capture_output": True, "text": True, "check": False, "timeout": 300},
    )
    assert told.returncode == 0, told.stderr[-2000:]
