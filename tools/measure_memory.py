"""Measure what training holds in memory, one factor at a time, and compare it with a plan's estimate.

Models have random weights, so nothing is downloaded. Each measurement is a process that trains two steps with the
workflow's own code, on one core; what `--output` already has isn't measured again. Then the table of `--page` is
written between its markers, with the current estimates.
"""

# ruff: noqa: E402 – the workflow's modules aren't beside this script.

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# What a training has imported before its model.
import train  # noqa: F401

# isort: split
import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from snaketune.config.model import Model
from snaketune.config.technique import Technique
from snaketune.core import errors, files, manifest
from snaketune.dag.estimates import FLOAT, saved_numbers, training_memory
from snaketune.dag.shape import Shape
from snaketune.data.tokens import Rows
from snaketune.training.adapters import attach
from snaketune.training.base_model import load_base
from snaketune.training.checkpoints import Checkpoints
from snaketune.training.engines import accelerator_for, optimizer_for
from snaketune.training.loop import TrainingLoop
from snaketune.training.memory import count_elements, held_tensors, limit_threads, peak_memory, return_freed_memory
from snaketune.training.params import TrainingParams
from snaketune.training.recomputation import recompute
from snaketune.training.schedule import Plan
from track_tensors import LiveTensors, SavedTensors, storage_bytes
from write_figures import write

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
MODELS = {"36M": "phi3-36m", "135M": "smollm2-135m-instruct", "0.6B": "qwen3-0.6b"}
BASE = {"technique": "lora", "rows": 2, "tokens": 128}
# What differs from the base cell, for each size; the last ones for the smallest alone.
FACTORS: list[dict[str, Any]] = [
    {},
    *({"technique": name} for name in ("full", "dora", "peft-ia3", "peft-vera", "peft-prefix")),
    *({"base_precision": name} for name in ("bf16", "int8", "nf4")),
    {"compute_precision": "bf16"},
    {"base_precision": "nf4", "compute_precision": "bf16"},
    {"gradient_checkpointing": "feed-forward"},
    {"gradient_checkpointing": True},
    *({"rows": rows, "tokens": tokens} for rows, tokens in ((1, 128), (6, 128), (1, 512))),
]
OPTIMIZERS = [{"technique": "full", "optimizer": name} for name in ("adamw-8bit", "adafactor")]
# Whole models, whose resident memory is compared.
WHOLE: list[dict[str, Any]] = [{}, {"base_precision": "nf4"}]
KINDS = ("weights", "gradients", "optimizer", "saved", "tensors", "resident")
# The rest are keys of a recipe.
OWN = ("size", "technique", "rows", "tokens")


def cells() -> list[dict[str, Any]]:
    return [{"size": size, **BASE, **one} for size in MODELS for one in FACTORS + OPTIMIZERS * (size == "36M")]


def layers_of(cell: dict[str, Any]) -> list[int]:
    """Return of how many layers a cell is measured: one layer's share is the difference of the first two."""
    whole = any(cell == {"size": cell["size"], **BASE, **one} for one in WHOLE)
    return [1, 2, *([shape_of(cell["size"]).layers] if whole else [])]


def sizes_of(size: str) -> tuple[str, dict[str, Any]]:
    """Return a model's family and sizes, from its file of config/models/."""
    model = Model.model_validate(files.read_yaml(ROOT / f"config/models/{MODELS[size]}.yaml"))
    return model.model_type, model.sizes


def shape_of(size: str) -> Shape:
    return Shape.of(sizes_of(size)[1])


def recipe_of(cell: dict[str, Any]) -> TrainingParams:
    technique = files.read_yaml(ROOT / f"config/techniques/{cell['technique']}.yaml")
    changes = {key: value for key, value in cell.items() if key not in OWN}
    schedule = {"batch_rows": cell["rows"], "micro_batch_rows": cell["rows"], "epochs": 1, "steps": 2, "seed": 1}
    recipe = Technique.model_validate(technique).recipe(sizes_of(cell["size"])[0])
    return {**recipe, **schedule, "compute_precision": "fp32", "learning_rate": 1e-5, "keep_weights": False, **changes}  # type: ignore[typeddict-item]


def train_two_steps(cell: dict[str, Any], directory: Path) -> dict[str, int]:
    """Train two steps as `scripts/train.py` does, and return bytes by what holds them."""
    recipe = recipe_of(cell)
    limit_threads(1)
    if "gradient_checkpointing" in recipe:
        return_freed_memory()
    torch.manual_seed(1)
    accelerator = accelerator_for(recipe, count_elements(directory / "model.safetensors"))
    model: Any = load_base(directory, recipe["base_precision"], recipe["compute_precision"])
    recompute(model, recipe.get("gradient_checkpointing", False))
    if recipe["adapter"]:
        model = attach(model, recipe["adapter"])
    model.train()
    model, optimizer = accelerator.prepare(model, optimizer_for(model, recipe))
    weights = storage_bytes(held_tensors(model))
    saved = SavedTensors(weights)
    gradients: dict[int, int] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda one: gradients.update({id(one): one.grad.nbytes}))
    # No two rows share anything, and all of their tokens are learned.
    ids = np.random.default_rng(1).integers(8, model.config.vocab_size, (cell["rows"], cell["tokens"]), np.int32)
    rows = Rows(list(ids), [np.arange(cell["tokens"]) > 0] * cell["rows"])
    plan = Plan([list(range(cell["rows"]))] * 2, cell["rows"], 1e-5, 0, 1.0, 99)
    with tempfile.TemporaryDirectory() as work:
        checkpoints = Checkpoints(accelerator, Path(work), "")
        fit = TrainingLoop(accelerator, model, optimizer, rows, 0, plan, checkpoints, "")
        with LiveTensors(held_tensors(model)) as live, saved_tensors_hooks(saved.pack, lambda kept: kept.tensor):
            fit.run()
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    return {
        "weights": sum(weights.values()),
        "gradients": sum(gradients.values()),
        "optimizer": sum(storage_bytes(states).values()),
        "saved": saved.peak,
        "tensors": live.peak,
        "resident": peak_memory(),
    }


def save_random_model(size: str, layers: int, directory: Path) -> None:
    """Save a random model with so many layers of a size."""
    family, sizes = sizes_of(size)
    config = AutoConfig.for_model(family, **{**sizes, "num_hidden_layers": layers, "pad_token_id": 0})
    AutoModelForCausalLM.from_config(config).save_pretrained(directory, max_shard_size="1TB")


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, which has all imports already."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise errors.UserError(f"{function.__name__} {arguments} died: its message is above") from None
    finally:
        process.join()


def measure(output: Path) -> dict[str, dict[str, Any]]:
    """Return each cell's bytes by its number of layers; what isn't in ``output`` is measured and added."""
    found = files.read_json(output)["cells"] if output.exists() else {}
    with tempfile.TemporaryDirectory() as directory:
        for cell in cells():
            name = json.dumps(cell)
            for layers in layers_of(cell):
                if str(layers) in found.get(name, {}):
                    continue
                base = Path(directory) / f"{cell['size']}-{layers}"
                if not base.exists():
                    in_own_process(save_random_model, cell["size"], layers, base)
                found.setdefault(name, {})[str(layers)] = in_own_process(train_two_steps, cell, base)
                print(f"{name} {layers} layers: {found[name][str(layers)]}", flush=True)
                versions = {package: version(package) for package in PACKAGES}
                files.write_json(output, {"cells": found, "versions": versions, "hardware": manifest.hardware()})
    return found


def estimated(cell: dict[str, Any], layers: int) -> dict[str, float]:
    """Return the estimate of what `train_two_steps` measures."""
    recipe, shape = dict(recipe_of(cell)), replace(shape_of(cell["size"]), layers=layers)
    memory, tokens = training_memory(recipe, shape, cell["tokens"]), cell["rows"] * cell["tokens"]
    return {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "saved": FLOAT * saved_numbers(recipe, shape, tokens, cell["tokens"]),
        "tensors": memory.states + memory.buffers + memory.live,
        "resident": memory.total,
    }


def estimated_and_measured(cell: dict[str, Any], measured: dict[str, dict[str, int]]) -> dict[str, tuple[float, float]]:
    """Return (estimated, measured) bytes of each kind: of the whole model, or of one layer for what autograd saves."""
    layers = shape_of(cell["size"]).layers
    pairs = [(estimated(cell, n), measured[str(n)]) for n in (1, 2)]
    found: dict[str, tuple[float, float]] = {}
    for kind in ("weights", "gradients", "optimizer", "saved", "tensors"):
        (a, b), (c, d) = ((estimate[kind], bytes_[kind]) for estimate, bytes_ in pairs)
        more = 0 if kind == "saved" else layers - 1
        found[kind] = (a + more * (c - a), b + more * (d - b)) if more else (c - a, d - b)
    if whole := measured.get(str(layers)):
        found["resident"] = (estimated(cell, layers)["resident"], whole["resident"])
    return found


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Return a line for each cell: estimated over measured, and what was measured in MB."""
    lines = [
        "| size | differs from the base cell by | weights | gradients | optimizer | saved by a layer | all tensors | resident |",
        "|---" * 8 + "|",
    ]
    for cell in cells():
        seen = measured[json.dumps(cell)]
        changed = {key: value for key, value in cell.items() if key != "size" and BASE.get(key) != value}
        words = ", ".join(f"`{key}: {str(value).lower()}`" for key, value in changed.items())
        of = estimated_and_measured(cell, seen)
        shown = (f"{of[kind][0] / of[kind][1]:.2f} × {of[kind][1] / 1e6:,.1f}" if kind in of else "" for kind in KINDS)
        lines.append(f"| {cell['size']} | {words or 'nothing'} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/estimates.json", help="(%(default)s)")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/scale.md", help="(%(default)s)")
    arguments = parser.parse_args()
    written = table(measure(arguments.output))
    write([arguments.page], {"estimates": written})


if __name__ == "__main__":
    errors.run(main)
