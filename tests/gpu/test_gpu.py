"""Each technique on a GPU, at bf16: it learns, and what it takes beside its estimate; `make gpu` records the figures.

Models are random, with the sizes of real ones, so nothing is downloaded. Without a GPU, all is done on a CPU up to there.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.measurements import run_script
from support.training_runs import REPOSITORY, TECHNIQUES, command, curve, recipe_of
from transformers import AutoConfig, AutoModelForCausalLM

import train
from snaketune.config.model import Model
from snaketune.config.validation import validated
from snaketune.core import manifest
from snaketune.core.files import read_json, read_yaml
from snaketune.dag.devices import training_gpu_bytes
from snaketune.dag.shape import Shape
from snaketune.data.tokens import Rows, write_rows

pytestmark = pytest.mark.long
SMALL, LARGE = "smollm2-135m-instruct", "phi-4-mini-instruct"
# The most telling first: what doesn't fit into the minutes is left out.
FIRST = ["full", "lora", "qlora", "dora", "peft-ia3", "deepspeed", "zero3"]
CELLS = [
    *((SMALL, name) for name in FIRST),
    *((LARGE, name) for name in ("lora", "qlora", "dora", "full")),
    *((SMALL, name) for name in TECHNIQUES if name not in FIRST),
]
SECONDS = 9 * 60
STEPS, LENGTH, BATCH = 8, 512, 8
Figures = dict[str, dict[str, Any]]


@cache
def model_of(name: str) -> Model:
    found: Model = validated(Model, read_yaml(REPOSITORY / f"config/models/{name}.yaml"), name)
    return found


def recipe_for(model: str, technique: str) -> dict[str, Any]:
    recipe = recipe_of(
        technique, model_of(model).model_type, steps=STEPS, keep_weights=False, compute_precision="bf16",
        batch_rows=BATCH, micro_batch_rows=BATCH, warmup_share=0.0,
    )  # fmt: skip
    return recipe | {"learning_rate": 1e-2 if recipe["adapter"] else 1e-4}


def estimate(model: str, recipe: dict[str, Any]) -> float:
    return training_gpu_bytes(recipe, Shape.of(model_of(model).sizes), LENGTH)


def save_inputs(directory: Path, name: str, length: int, **changes: int) -> Path:
    """A random model of these sizes, and rows that say one thing but share no beginning."""
    torch.manual_seed(1)
    sizes = {**model_of(name).sizes, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **changes}
    config = AutoConfig.for_model(model_of(name).model_type, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory / "base", max_shard_size="1TB")
    (directory / "tokens").mkdir()
    ids = np.resize(np.arange(100, 110, dtype=np.int32), length)
    rows = Rows([np.append(np.int32(200 + n), ids[1:]) for n in range(64)], [np.arange(length) >= length // 2] * 64)
    for split in ("train", "validation"):
        write_rows(directory / f"tokens/{split}.safetensors", rows)
    for made in ("base", "tokens"):
        manifest.record(directory / made, {}, [], sorted((directory / made).iterdir()))
    return directory


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: save_inputs(tmp_path_factory.mktemp("gpu"), name, LENGTH))


@pytest.fixture(scope="module")
def figures(record: Callable[[str, dict[str, Any]], None]) -> Any:
    """What was measured so far, written after each technique, and when the first began."""
    found: Figures = {SMALL: {}, LARGE: {}}

    def write() -> None:
        gpu = torch.cuda.get_device_properties(0)
        machine = {"gpu": gpu.name, "memory_bytes": gpu.total_memory, "torch": torch.__version__}
        record("gpu.json", {**machine, "steps": STEPS, "rows": BATCH, "tokens": LENGTH, "models": found})

    return found, write, time.monotonic()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("model", "technique"), CELLS)
def test_a_technique_learns_on_a_gpu(
    model: str, technique: str, inputs: Callable[[str], Path], figures: Any, tmp_path: Path
) -> None:
    found, write, begun = figures
    recipe = recipe_for(model, technique)
    recipe["world_size"] = min(recipe["world_size"], torch.cuda.device_count())
    expected, there = estimate(model, recipe), torch.cuda.get_device_properties(0).total_memory
    if expected > there:
        pytest.skip(f"takes {expected / 1e9:.0f} GB, and the GPU has {there / 1e9:.0f}")
    if time.monotonic() - begun > SECONDS:
        pytest.skip(f"over {SECONDS / 60:.0f} minutes: run it alone, with -k {technique}")
    launcher = [sys.executable, "scripts/launch.py", "--ranks", str(recipe["world_size"])]
    ran = subprocess.run(
        [*launcher, *command(inputs(model), tmp_path, recipe)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    losses = [entry["loss"] for entry in curve(tmp_path)]
    assert losses[-1] < losses[0]
    resources = read_json(tmp_path / "run/resources.json")
    assert resources["hardware"]["gpu"]
    weights = sum(resources["ranks"][0][name] for name in ("weight_bytes", "optimizer_bytes"))
    assert resources["peak_memory_bytes"] > weights * (recipe["engine"]["offload"] == "none")
    kept = ("peak_memory_bytes", "tokens_per_second", "world_size", "trainable_parameters", "total_parameters")
    found[model][technique] = {name: resources[name] for name in kept} | {"estimated_bytes": expected}
    write()


def test_a_run_is_right_up_to_the_device(tmp_path: Path) -> None:
    """Every recipe has its estimate, and one layer of the small model trains wherever this is."""
    for model, technique in CELLS:
        assert estimate(model, recipe_for(model, technique)) > 1e8, (model, technique)
    narrow = save_inputs(tmp_path, SMALL, 16, num_hidden_layers=1, vocab_size=512)
    run_script(train, *command(narrow, tmp_path, recipe_for(SMALL, "lora"))[1:])
    losses = [entry["loss"] for entry in curve(tmp_path)]
    assert losses[-1] < losses[0]
