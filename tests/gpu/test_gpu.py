"""Each technique on a GPU, at bf16: it learns, and what it takes; `make gpu` records the figures."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.training_runs import REPOSITORY, TECHNIQUES, command, curve, recipe_of
from transformers import Phi3Config, Phi3ForCausalLM

from snaketune.core import manifest
from snaketune.core.files import read_json
from snaketune.data.tokens import Rows, write_rows

pytestmark = [pytest.mark.long, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

# All weights with two Adam moments take 16 bytes each: 3.8 billion fit where there is room for 61 GB.
LARGE = 90e9
STEPS, LENGTH = 8, 256


@pytest.fixture(scope="module")
def layers() -> int:
    return 32 if torch.cuda.get_device_properties(0).total_memory > LARGE else 2


@pytest.fixture(scope="module")
def inputs(layers: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of Phi-3-mini's shape, and rows that say one thing but share no beginning."""
    directory = tmp_path_factory.mktemp("gpu")
    torch.manual_seed(1)
    # The configuration's defaults are Phi-3-mini's.
    Phi3ForCausalLM(Phi3Config(num_hidden_layers=layers)).save_pretrained(directory / "base", max_shard_size="1TB")
    (directory / "tokens").mkdir()
    ids = np.resize(np.arange(100, 110, dtype=np.int32), LENGTH)
    rows = Rows([np.append(np.int32(200 + n), ids[1:]) for n in range(64)], [np.arange(LENGTH) >= 128] * 64)
    for split in ("train", "validation"):
        write_rows(directory / f"tokens/{split}.safetensors", rows)
    for made in ("base", "tokens"):
        manifest.record(directory / made, {}, [], sorted((directory / made).iterdir()))
    return directory


@pytest.fixture(scope="module")
def figures(layers: int, record: Callable[[str, dict[str, Any]], None]) -> Any:
    found: dict[str, Any] = {}
    yield found
    gpu = torch.cuda.get_device_properties(0)
    machine = {"gpu": gpu.name, "memory_bytes": gpu.total_memory, "torch": torch.__version__}
    record("gpu.json", {**machine, "layers": layers, "techniques": found})


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_technique_learns_on_a_gpu(technique: str, inputs: Path, figures: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_of(technique, steps=STEPS, keep_weights=False, compute_precision="bf16", warmup_share=0.0)
    recipe["learning_rate"] = 1e-2 if recipe["adapter"] else 1e-4
    recipe["world_size"] = min(recipe["world_size"], torch.cuda.device_count())
    launcher = [sys.executable, "scripts/launch.py", "--ranks", str(recipe["world_size"])]
    ran = subprocess.run(
        [*launcher, *command(inputs, tmp_path, recipe)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    losses = [entry["loss"] for entry in curve(tmp_path)]
    assert losses[-1] < losses[0]
    resources = read_json(tmp_path / "run/resources.json")
    assert resources["hardware"]["gpu"]
    weights = sum(resources["ranks"][0][name] for name in ("weight_bytes", "optimizer_bytes"))
    assert resources["peak_memory_bytes"] > weights * (recipe["engine"]["offload"] == "none")
    kept = ("peak_memory_bytes", "tokens_per_second", "world_size", "trainable_parameters", "total_parameters")
    figures[technique] = {name: resources[name] for name in kept}
