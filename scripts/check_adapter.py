"""Check that a switchable base equals the merged model with an adapter, and the base model without one.

The logits compared are those of the parity probe: the last positions of held-out rows.
"""

import math
import time
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from snaketune.core import cli, errors, files, manifest
from snaketune.core.layout import INPUTS_FILE
from snaketune.data.tokens import read_rows
from snaketune.inference.adapter_backend import adapter_backend
from snaketune.inference.probe import run_probe


def seconds(call: Any, *arguments: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    found = call(*arguments)
    return found, time.perf_counter() - started


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "probe, threads, largest_logit_difference, gate",
        "--adapter --tokens-directory --output",
        model="model.onnx of the switchable base",
        merged_logits="of the run's merged model, by torch",
        base_logits="of the untuned model, by torch",
    ).parse_args()
    recipe, model, adapter = arguments.recipe, arguments.model, arguments.adapter

    manifest.prove(model.with_name("manifest.json"), "model.onnx", "model.onnx_data", INPUTS_FILE)
    manifest.prove(arguments.tokens_directory / "manifest.json")
    rows = read_rows(arguments.tokens_directory / "test.safetensors")
    backend, loading = seconds(adapter_backend, model, recipe["threads"])
    _, first = seconds(backend.load, adapter)
    found: dict[str, float] = {}
    switching = []
    # The adapter comes twice: it must still be intact after it was switched off.
    for name, switched, expected in (
        ("merged", adapter, arguments.merged_logits),
        ("base", None, arguments.base_logits),
        ("merged", adapter, arguments.merged_logits),
    ):
        switching.append(seconds(backend.switch, switched)[1])
        logits = run_probe(backend, rows, recipe["probe"])["logits"]
        # Unlike Python's max(), this keeps a NaN.
        distance = np.abs(logits.astype(np.float64) - load_file(expected)["logits"]).max()
        found[name] = float(np.maximum(found.get(name, 0.0), distance))

    limit = recipe["largest_logit_difference"]
    passed = limit is None or all(distance <= limit for distance in found.values())
    summary = f"largest logit difference from the merged model {found['merged']:.2g}, without the adapter from the base {found['base']:.2g}"
    if not all(map(math.isfinite, found.values())):
        raise errors.UserError(f"{adapter}: logits aren't finite numbers: make the adapter again")
    if not passed and recipe["gate"] == "fail":
        raise errors.UserError(
            f"{adapter}: {summary}, expected at most {limit:g}: raise the budget of merged-onnx-fp32 in the experiment's `parity:`, or set `gate: warn`"
        )
    figures: dict[str, Any] = {
        "largest_logit_difference": found,
        "positions": len(logits),
        "limit": limit,
        "passed": passed,
        "base_bytes": sum(model.with_name(name).stat().st_size for name in ("model.onnx", "model.onnx_data")),
        "adapter_bytes": adapter.stat().st_size,
        "seconds_to_load_base": loading,
        "seconds_to_load_adapter": first,
        "seconds_to_switch": max(switching),
    }
    files.write_json(arguments.output, figures)
    print(
        f"{summary}; loading the base took {loading:.3f} s, the adapter {first:.4f} s, a switch {max(switching):.6f} s"
    )


if __name__ == "__main__":
    errors.run(main)
