"""How long a job is expected to take: a time limit (`resources`) is many times that, so that no slow machine exceeds it.

Measured with SmolLM2-135M and a Phi-3 of 1M parameters on two cores of a server with AMX. Half or twice as long is usual.
"""

import math
from typing import Any

from snaketune.dag import devices
from snaketune.dag.estimates import CORE_SPEED, FLOAT, START_SECONDS
from snaketune.dag.resources import JobResources, is_training

# Imports, a first step and a last checkpoint; imports alone.
TRAINING_START, START = 20, 3
# What `estimates.training_seconds` doubles, and how much faster than its CORE_SPEED a core computes.
SAFETY, FASTER = 2, 1e11 / CORE_SPEED
# Of a GB of fp32 weights.
SECONDS = {"fetch_model": 40, "merge_adapter": 25, "copy_model": 5, "export_onnx": 50, "quantize_onnx": 20, "build_genai": 50}  # fmt: skip
# Of a GB and a test row: answers of a few tokens.
ROW_SECONDS = 0.55


def expected_seconds(needs: JobResources, rule: str, wildcards: Any) -> float:
    """Return the seconds that a job is expected to take on the cores and GPUs that it requests."""
    if is_training(rule) or rule == "pretrain_model":
        limit = needs.pretraining_minutes if rule == "pretrain_model" else needs.training_minutes
        # GPU_SPEED was measured on none, so it isn't corrected.
        faster = 1 if needs.counts_gpus and is_training(rule) else FASTER
        return TRAINING_START + (60 * limit(wildcards, 1) - START_SECONDS) / SAFETY / faster
    model, scenario = wildcards.get("model"), wildcards.get("scenario")
    if model not in needs.matrix.models:
        return START
    gigabytes = FLOAT * needs.sizes.shape(model).parameters / 1e9
    seconds = SECONDS.get(rule, 0.0)
    if rule.startswith("evaluate_") and scenario:
        seconds = ROW_SECONDS * needs.sizes.test_rows(scenario)
        seconds /= devices.GPU_FASTER if rule == "evaluate_torch" and needs.evaluation_gpus(wildcards) else 1
    return START + seconds * gigabytes


def in_all(jobs: list[tuple[int, float]], cores: int, rows_known: bool) -> str:
    """Say how long jobs of so many cores and minutes take together: as long as cores are busy, or the longest job lasts."""
    minutes = max([sum(used * long for used, long in jobs) / cores, *(long for _, long in jobs)])
    # More digits aren't known.
    said = f"{math.ceil(minutes)} minutes" if minutes > 1 else "a minute"
    if minutes > 99:
        said = f"{float(f'{minutes / 60:.2g}'):,g} hours"
    rough = "half or twice as long is usual"
    if not rows_known:
        rough = "probably far less, as rows that aren't tokenized yet count as many and long"
    return f"All of it takes roughly {said} on {cores} core{'s' if cores > 1 else ''}; {rough}."
