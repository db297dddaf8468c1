"""Measure memory and parameters of a training process; fix its threads."""

import ctypes
import math
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from snaketune.core.errors import UserError
from snaketune.training.params import EngineParams


def limit_threads(threads: int) -> None:
    """Fix the number of threads, because it determines the order of floating-point sums.

    Raises:
        UserError: this process has fewer cores.
    """
    # macOS has no affinities.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if available < threads:
        raise UserError(
            f"this job needs {threads} threads, but may use {available} cores: give it more cores, or lower `threads` of the technique (which changes the result's last digits)"
        )
    # accelerate and OpenMP read it.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # cuBLAS is not deterministic without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills each new tensor with NaN, which changes nothing that is written before it is read:
    # 3 % of a step of a model with 36 million parameters.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def return_freed_memory() -> None:
    """Let glibc give large freed tensors back to the system at once.

    Batches come in many lengths, and its heap fills with gaps between them: measured with SmolLM2 at
    1,024 tokens, 3.6 GB instead of 2.5, at the same speed. Merging a DoRA makes matrices of many sizes, too.
    """
    # M_MMAP_THRESHOLD, fixed at its default, which otherwise grows to 32 MiB; other C libraries have no such option.
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(-3, 2**17)


def peak_memory() -> int:
    """Return the peak memory of this process in bytes: GPU memory if there is a GPU, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def count_elements(weights: Path) -> int:
    """Count the elements of a safetensors file from its header."""
    with safe_open(weights, framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def parameter_count(model: torch.nn.Module) -> int:
    """Count the parameters of the whole model, although under ZeRO-3 a tensor holds only this rank's shard."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())


def tensor_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def held_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors in which this rank holds the model's weights.

    ZeRO-3 keeps a parameter's shard in ``ds_tensor``; a 4-bit weight carries the scales of its
    blocks; VeRA's projections are buffers.
    """
    for parameter in model.parameters():
        yield parameter
        if hasattr(parameter, "ds_tensor"):
            yield parameter.ds_tensor
        if hasattr(parameter, "quant_state"):
            beside = parameter.quant_state.as_dict(packed=False).values()
            yield from (tensor for tensor in beside if isinstance(tensor, torch.Tensor))
    yield from model.buffers()


def model_state_bytes(model: torch.nn.Module, optimizer: Any, engine: EngineParams) -> dict[str, int]:
    """Return the bytes of weights, gradients and optimizer states that this rank holds.

    Weights and optimizer states are counted from their tensors. Gradients are freed by the time of
    the count, so theirs are computed from the trainable weights, which ZeRO shards from stage 2 on
    (arXiv 1910.02054, section 3).
    """
    trainable = sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in model.parameters() if p.requires_grad)
    world = int(os.environ.get("WORLD_SIZE", 1))
    shards = world if engine["type"] == "deepspeed" and engine["zero_stage"] >= 2 else 1
    masters: list[torch.Tensor] = []
    while hasattr(optimizer, "optimizer"):
        # DeepSpeed's fp32 master weights: stages 1 and 2, and stage 3.
        for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
            masters += getattr(optimizer, name, [])
        optimizer = optimizer.optimizer
    # Tables of 8-bit optimizers are shared.
    states = {
        id(value): value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    }
    return {
        "weight_bytes": tensor_bytes(held_tensors(model)),
        "gradient_bytes": trainable // shards,
        "optimizer_bytes": tensor_bytes(masters) + tensor_bytes(states.values()),
    }
