"""Memory, parameters and threads of a training process."""

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


def limit_threads(threads: int) -> None:
    """Compute with exactly so many threads: their number changes the order of sums.

    Raises:
        UserError: the machine lends this process fewer cores.
    """
    available = len(os.sched_getaffinity(0))
    if available < threads:
        raise UserError(
            f"the recipe asks for {threads} threads, but this process may use {available} cores: lower `threads` in the recipe (the result's last digits depend on it), or give the job more cores"
        )
    # accelerate and OpenMP take their number from here.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Without it cuBLAS has no deterministic form.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def peak_memory() -> int:
    """Largest memory of this process so far, in bytes: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def count_elements(weights: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    with safe_open(weights, framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters of the whole model: under ZeRO-3 each tensor holds only this rank's share."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())


def tensor_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def held_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """The tensors that this rank keeps of a model's weights.

    ZeRO-3 leaves a parameter its share (``ds_tensor``) and empties it, or keeps it whole too;
    a 4-bit weight has the scales of its blocks beside it; VeRA's projections are buffers.
    """
    for parameter in model.parameters():
        yield parameter
        if hasattr(parameter, "ds_tensor"):
            yield parameter.ds_tensor
        if hasattr(parameter, "quant_state"):
            beside = parameter.quant_state.as_dict(packed=False).values()
            yield from (tensor for tensor in beside if isinstance(tensor, torch.Tensor))
    yield from model.buffers()


def model_state_bytes(model: torch.nn.Module, optimizer: Any, engine: dict[str, Any]) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer states that this rank holds.

    Weights and optimizer states are counted from the tensors themselves. Gradients are freed by
    then, so theirs follow from the trainable weights; ZeRO divides them from stage 2 on
    (arXiv 1910.02054, section 3).
    """
    trainable = sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in model.parameters() if p.requires_grad)
    world = int(os.environ.get("WORLD_SIZE", 1))
    shards = world if engine["type"] == "deepspeed" and engine["zero_stage"] >= 2 else 1
    masters: list[torch.Tensor] = []
    while hasattr(optimizer, "optimizer"):
        # DeepSpeed's own copies of the weights it updates, by its stages 1 and 2, and by 3.
        for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
            masters += getattr(optimizer, name, [])
        optimizer = optimizer.optimizer
    states = (
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    )
    return {
        "weight_bytes": tensor_bytes(held_tensors(model)),
        "gradient_bytes": trainable // shards,
        "optimizer_bytes": tensor_bytes(masters) + tensor_bytes(states),
    }
