"""Measure which parts of a training step take how long, for LoRA and for DoRA, and what share of `linear`'s peak is reached.

The parts are torch's own profile of a step, by operator and shape, scaled to the time of a step without the profiler. LoRA and DoRA take turns.
"""

import argparse
import os
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import turns  # first: it puts the workflow's modules on the path

# isort: split
import training

from snaketune.core import errors, files
from snaketune.evaluation import speed

ARMS = {"lora": "ours-fp32", "dora": "dora-fp32"}
PRODUCTS, HEAD, ADAPTER, NORMS = "frozen weights: products", "head: products", "adapter: products", "DoRA's norms"
ATTENTION, LOSS, UPDATE = "attention, and looking up its rows", "loss", "clipping and optimizer"
OTHER = "norms, rotary positions, activations, sums, copies"
PARTS = (PRODUCTS, HEAD, ADAPTER, NORMS, ATTENTION, LOSS, UPDATE, OTHER)


def part_of(name: str, shapes: list[list[int]], rank: int, tokens: int, vocabulary: int) -> str:
    """Return the part of a step to which an operator with inputs of these shapes belongs."""
    if name in ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm"):
        sizes = {size for shape in shapes for size in shape}
        if vocabulary in sizes:
            return HEAD
        if rank not in sizes:
            return PRODUCTS
        return ADAPTER if tokens in sizes else NORMS
    if "scaled_dot_product" in name or "embedding_bag" in name or "Rowwise" in name or "_index" in name:
        return ATTENTION
    if "softmax" in name or "nll_loss" in name:
        return LOSS
    return UPDATE if "Optimizer" in name or "foreach" in name or "_fused_adam" in name else OTHER


def measured(servers: dict[str, turns.Turns], kind: str, rounds: int) -> dict[str, Any]:
    """Return, by technique, the CPU milliseconds of a step and of its parts, and the share of `linear`'s peak that it reaches."""
    for server in servers.values():
        server.ask("turn", kind)
    steps, profiles = ({name: [] for name in servers} for _ in range(2))
    for order in speed.counted(kind, list(servers), rounds):
        for name in order:
            steps[name].append(servers[name].ask("turn", kind))
            profiles[name].append(servers[name].ask("profile", kind))
    found = {}
    for name, done in steps.items():
        taken = dict.fromkeys(PARTS, 0.0)
        for one in profiles[name]:
            for operator, shapes, microseconds in one["operators"]:
                taken[part_of(operator, shapes, **one["sizes"])] += microseconds
        milliseconds = 1000 * statistics.median(one["cpu_seconds"] for one in done)
        found[name] = {
            "computed_tokens": done[0]["computed_tokens"],
            "milliseconds": milliseconds,
            "parts": {part: milliseconds * one / sum(taken.values()) for part, one in taken.items()},
            "share_of_peak": statistics.median(one["share_of_peak"] for one in done),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(training.SIZES)
    parser.add_argument("--sizes", nargs="+", default=known[1:], choices=known, help="models (%(default)s)")
    parser.add_argument("--model", type=Path, help="directory of the model, for one of --sizes")
    parser.add_argument("--kind", default=next(iter(turns.KINDS)), choices=turns.KINDS, help="of rows (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=turns.ROOT / "benchmarks/step.json", help="(%(default)s)")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    turns.quiet("step")
    results = files.read_json(arguments.output) if arguments.output.exists() else {"sizes": {}}
    for size in arguments.sizes:
        model, rows = training.model_of(size, arguments.model), training.SIZES[size][0]
        servers: dict[str, turns.Turns] = {}
        try:
            for name, arm in ARMS.items():
                servers[name] = turns.Turns(arm, partial(training.load, model, arm, 1, rows, rows), 120)
            of = measured(servers, arguments.kind, arguments.rounds)
        finally:
            for server in servers.values():
                server.stop()
        results["sizes"][size] = {"kind": arguments.kind, "techniques": of, **turns.provenance(), "threads": 1}
        files.write_json(arguments.output, results)


if __name__ == "__main__":
    errors.run(main)
