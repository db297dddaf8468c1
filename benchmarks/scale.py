"""Predict step time, memory and communication of Phi-3-mini and -medium on 1 to 64 GPUs.

Nothing here has been run on several GPUs: `docs/scale.md` says what is measured, computed and assumed.
The measured part comes from the short runs of `config/experiments/published-table.yaml`.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from snaketune.config.technique import Technique
from snaketune.core.files import read_json, read_yaml, write_json
from snaketune.dag.estimates import FLOAT, adapter_parameters, training_memory
from snaketune.dag.shape import Shape

# Sizes of the models' published config.json.
MODELS = {
    "phi-3-mini": Shape(3072, 32, 8192, 32, 32, 32064, 4096, False),
    "phi-3-medium": Shape(5120, 40, 17920, 40, 10, 32064, 4096, False),
}
MEASURED = Shape(512, 8, 1920, 8, 8, 8192, 512, True)
LONGEST = 131
GPUS = (1, 2, 4, 8, 16, 32, 64)
TECHNIQUES = ("full", "deepspeed", "zero2", "zero3", "lora", "qlora", "dora", "peft-ia3", "lora-zero3")
# Assumed, none of them measured: fp32 matrix products on tensor cores at 40 % of 156 TFLOP/s, as
# A100's data sheet has it for TF32; NVLink's 300 GB/s a direction within 8 GPUs; 200 Gbit/s between.
ASSUMED = {
    "gpu_flops": 6.2e13,
    "gpu_bytes": 80e9,
    "gpus_per_node": 8,
    "bytes_per_second_in_a_node": 3e11,
    "bytes_per_second_between_nodes": 2.5e10,
    "batch_rows": 64,
    "micro_batch_rows": 1,
    "tokens_per_row": 2048,
}


def recipe_of(root: Path, technique: str, ranks: int, batch_rows: int, micro_batch_rows: int) -> dict[str, Any]:
    content = Technique.model_validate(read_yaml(root / f"config/techniques/{technique}.yaml")).recipe("phi3")
    sizes = {"world_size": ranks, "batch_rows": batch_rows, "micro_batch_rows": micro_batch_rows, "steps": 1}
    return {**content, **sizes}


def communicated(recipe: dict[str, Any], shape: Shape) -> float:
    """Bytes that a rank sends in a step, in fp32, by the ZeRO paper (arXiv 1910.02054, section 7).

    DDP and stages 1 and 2 move twice the trained parameters. Stage 3 gathers all weights, frozen
    ones too, for the forward and the backward pass of each micro-batch, and reduces gradients once
    for each.
    """
    ranks = recipe["world_size"]
    trained = adapter_parameters(shape, recipe["adapter"]) if recipe["adapter"] else shape.parameters
    whole = shape.parameters + (trained if recipe["adapter"] else 0)
    micro = -(-recipe["batch_rows"] // (ranks * recipe["micro_batch_rows"]))
    moved = micro * (2 * whole + trained) if recipe["engine"]["zero_stage"] == 3 else 2 * trained
    return FLOAT * moved * (ranks - 1) / ranks


def operations(recipe: dict[str, Any], shape: Shape, tokens: int) -> float:
    """2 for each parameter and token forward, 2 for gradients of inputs, 2 for those of weights (arXiv 2001.08361)."""
    return (4 if recipe["adapter"] else 6) * shape.parameters * tokens


def predicted(root: Path, technique: str, model: str, ranks: int) -> dict[str, Any]:
    shape, rows, longest = MODELS[model], ASSUMED["batch_rows"], ASSUMED["tokens_per_row"]
    recipe = recipe_of(root, technique, ranks, int(rows), int(ASSUMED["micro_batch_rows"]))
    memory = training_memory(recipe, shape, int(longest))
    bandwidth = ASSUMED[
        "bytes_per_second_in_a_node" if ranks <= ASSUMED["gpus_per_node"] else "bytes_per_second_between_nodes"
    ]
    sent = communicated(recipe, shape)
    computing = operations(recipe, shape, int(rows * longest)) / (ranks * ASSUMED["gpu_flops"])
    # What a process holds before its model is host memory; an offloaded optimizer is, too.
    held = (
        memory.states + memory.buffers + memory.live - (memory.optimizer if recipe["engine"]["offload"] == "cpu" else 0)
    )
    return {
        "model": model,
        "technique": technique,
        "gpus": ranks,
        "computing_seconds": round(computing, 3),
        "communication_seconds": round(sent / bandwidth, 3),
        "step_seconds_without_overlap": round(computing + sent / bandwidth, 3),
        "sent_gigabytes_of_a_rank": round(sent / 1e9, 2),
        "state_gigabytes_of_a_rank": round(memory.states / 1e9, 2),
        "gigabytes_of_a_rank": round(held / 1e9, 2),
        "fits": held <= ASSUMED["gpu_bytes"],
    }


def validated(root: Path, properties: Path) -> list[dict[str, Any]]:
    """Compare predicted memory, and work divided by ranks, with each number of ranks that was measured."""
    found = []
    for directory in sorted(path for path in properties.iterdir() if path.is_dir()):
        measured = {
            int(path.name.split("-")[1]): [read_json(one) for one in sorted(path.glob("round-*/resources.json"))]
            for path in directory.glob("ranks-*")
        }
        cpu = {ranks: statistics.median(r["cpu_seconds_of_rank_0"] for r in runs) for ranks, runs in measured.items()}
        for ranks, runs in sorted(measured.items()):
            recipe = recipe_of(root, directory.name, ranks, 16, 16)
            recipe["micro_batch_rows"] = read_yaml(root / f"config/techniques/{directory.name}.yaml").get(
                "micro_batch_rows", 16
            )
            peak = max(rank["peak_memory_bytes"] for run in runs for rank in run["ranks"])
            states = ("weight_bytes", "gradient_bytes", "optimizer_bytes")
            held = sum(runs[0]["ranks"][0][kind] for kind in states)
            memory = training_memory(recipe, MEASURED, LONGEST)
            found.append(
                {
                    "technique": directory.name,
                    "ranks": ranks,
                    "runs": len(runs),
                    "state_predicted_over_measured": round(memory.states / held, 3),
                    "peak_predicted_over_measured": round(memory.total / peak, 3),
                    "cpu_seconds_of_a_rank": round(cpu[ranks], 2),
                    "work_divided_by_ranks": round(cpu[1] / ranks, 2),
                    "sent_gigabytes_of_a_rank": round(communicated(recipe, MEASURED) / 1e9, 3),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--properties", type=Path, default=Path("results/properties"), help="the measured short runs")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/scale.json"))
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    predictions = [predicted(root, name, model, gpus) for model in MODELS for name in TECHNIQUES for gpus in GPUS]
    write_json(
        arguments.output,
        {"assumed": ASSUMED, "predicted": predictions, "validated": validated(root, arguments.properties)},
    )
    for one in predictions:
        if one["gpus"] in (1, 8, 64):
            print(json.dumps(one))


if __name__ == "__main__":
    main()
