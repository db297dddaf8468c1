"""Measure how fast each form of a run's model generates on this machine: torch, ONNX Runtime, onnxruntime-genai.

Each form runs in its own process; all are loaded and take turns at each prompt length and batch
size, so that they see the same machine. Absolute times hold for this machine only; ratios are more portable.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from snaketune.core import cli, errors, files, manifest
from snaketune.data.tokens import read_rows
from snaketune.evaluation.speed import Server, file_bytes, loaded, measure, systems_of
from snaketune.inference.load import prove


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        "threads, prompt_lengths, batch_sizes, new_tokens, rounds",
        "--output",
        model="model.safetensors of the run",
        tokens_directory="for prompts",
    )
    parser.add_argument("--exports", type=Path, nargs="+", required=True, help="model.onnx of each precision")
    arguments = parser.parse_args()
    recipe, model = arguments.recipe, arguments.model
    systems = systems_of(model, arguments.exports)

    manifest.prove(arguments.tokens_directory / "manifest.json")
    for path in [model, *arguments.exports]:
        prove(path)
    text = np.concatenate(read_rows(arguments.tokens_directory / "test.safetensors").ids)
    config = files.read_json(model.with_name("config.json"))
    context = config.get("max_position_embeddings") or config.get("n_positions")
    if context is None:
        raise errors.UserError(
            f"{model.with_name('config.json')}: no max_position_embeddings or n_positions, so the context isn't known: add one"
        )
    sizes = {name: file_bytes(name, path) for name, path in systems.items()}
    needed, free = sum(sizes.values()), psutil.virtual_memory().available
    if needed > free:
        raise errors.UserError(
            f"{model}: all {len(systems)} forms together need more than {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free: leave precisions or `benchmark:` out of the experiment, or use a larger machine"
        )

    servers: dict[str, Server] = {}
    try:
        for name, path in systems.items():
            servers[name] = Server(name, partial(loaded, name, path, recipe["threads"]))
        shapes = measure(servers, text, context, recipe)
    finally:
        for server in servers.values():
            server.stop()
    found: dict[str, Any] = {k: recipe[k] for k in ("threads", "rounds", "new_tokens")}
    found["hardware"] = manifest.hardware()
    found["systems"] = {
        name: {**servers[name].loaded, "file_bytes": sizes[name], "shapes": shapes[name]} for name in systems
    }
    files.write_json(arguments.output, found)


if __name__ == "__main__":
    errors.run(main)
