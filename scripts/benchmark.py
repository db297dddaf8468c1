"""Measure how fast each form of a run's model generates on this machine: torch, ONNX Runtime, onnxruntime-genai.

Each form has a process of its own; all are loaded and take turns at each prompt length and batch
size, so that they see the same machine. Absolute times hold for this machine only; ratios carry further.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from snaketune.core import errors, files, manifest
from snaketune.core.precisions import backend_of
from snaketune.data.tokens import read_rows
from snaketune.evaluation.speed import Server, file_bytes, loaded, measure
from snaketune.inference.load import prove


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe",
        type=json.loads,
        required=True,
        help='JSON: {"precisions", "threads", "prompt_lengths", "batch_sizes", "new_tokens", "rounds"}',
    )
    parser.add_argument("--run-directory", type=Path, required=True)
    parser.add_argument("--tokens-directory", type=Path, required=True, help="test rows, for prompts of real text")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    recipe, run = arguments.recipe, arguments.run_directory

    manifest.prove(arguments.tokens_directory / "manifest.json")
    prove(run / "merged/model.safetensors")
    for precision in recipe["precisions"]:
        prove(run / "onnx" / precision / "model.onnx")
    text = np.concatenate(read_rows(arguments.tokens_directory / "test.safetensors").ids)
    config = files.read_json(run / "merged/config.json")
    context = config.get("max_position_embeddings") or config.get("n_positions")
    if context is None:
        raise errors.UserError(
            f"{run / 'merged/config.json'}: no max_position_embeddings or n_positions, so the context isn't known: add one"
        )
    systems = ["torch-fp32", "torch-bf16", *map(backend_of, recipe["precisions"])]
    needed, free = sum(file_bytes(run, name) for name in systems), psutil.virtual_memory().available
    if needed > free:
        raise errors.UserError(
            f"{run}: all {len(systems)} forms together need more than {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free: leave precisions or `benchmark:` out of the experiment, or use a larger machine"
        )

    servers: dict[str, Server] = {}
    try:
        for name in systems:
            servers[name] = Server(name, partial(loaded, name, run, recipe["threads"]))
        shapes = measure(servers, text, context, recipe)
    finally:
        for server in servers.values():
            server.stop()
    found: dict[str, Any] = {
        name: {**servers[name].loaded, "file_bytes": file_bytes(run, name), "shapes": shapes[name]} for name in systems
    }
    files.write_json(
        arguments.output,
        {
            "systems": found,
            "hardware": manifest.hardware(),
            **{k: recipe[k] for k in ("threads", "rounds", "new_tokens")},
        },
    )


if __name__ == "__main__":
    errors.run(main)
