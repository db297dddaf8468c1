"""Estimate what of a job lies where: in the host's memory, in that of a GPU, on disk."""

from typing import Any

from snaketune.dag.estimates import FLOAT, adapter_parameters, training_bytes, training_memory
from snaketune.dag.needs import NEEDS
from snaketune.dag.shape import Shape

# Assumed, as no GPU was at hand: what CUDA's libraries take of a process's memory, its context of a GPU's,
# and how much faster than a core a GPU generates. A job whose time limit is too short for it gets a longer one
# (`resources.longer`).
CUDA_LIBRARIES, CUDA_CONTEXT, GPU_FASTER = 3e9, 0.6e9, 20
# fp32 models that a rule leaves on disk, and those it has there beside them while it runs (what it asks `need_space` for).
KEPT = {
    "fetch_model": 1, "pretrain_model": 1, "train_all_weights": 1, "merge_adapter": 1, "copy_model": 1,
    "export_onnx": 1, "add_prefix_to_fp32": 1, "export_switchable_base": 1, "export_switchable_genai": 1,
    "dequantize_base": 1, "export_quantized_base": 0.3, "export_quantized_genai": 0.3,
    "quantize_onnx": 0.3, "add_prefix": 0.3, "build_genai": 0.3, "package_model": 0.3,
}  # fmt: skip
ASIDE = {"export_onnx": 2, "quantize_onnx": 2, "build_genai": 1, "train_all_weights": 6, "pretrain_model": 6}
WIDE = {"fp16": 0.5, "genai-fp32": 1.0}


def _offloaded(recipe: dict[str, Any], shape: Shape, longest: int) -> float:
    """Return the bytes of a rank's optimizer that are in the host's memory."""
    return training_memory(recipe, shape, longest).optimizer if recipe["engine"]["offload"] != "none" else 0


def training_gpu_bytes(recipe: dict[str, Any], shape: Shape, longest: int) -> float:
    """Return the memory of each GPU that a training job computes on, one for each rank."""
    found = training_memory(recipe, shape, longest)
    return found.states + found.buffers + found.live - _offloaded(recipe, shape, longest) + CUDA_CONTEXT


def training_host_bytes(recipe: dict[str, Any], shape: Shape, longest: int) -> float:
    """Return the host's memory of a training job on GPUs: each rank loads all weights before they move there."""
    found = training_memory(recipe, shape, longest)
    moved = found.total - found.libraries
    kept = CUDA_LIBRARIES + FLOAT * shape.parameters + _offloaded(recipe, shape, longest)
    return training_bytes(recipe, shape, longest) + recipe["world_size"] * (kept - moved)


def evaluation_gpu_bytes(parameters: int) -> float:
    return NEEDS["torch"].copies * FLOAT * parameters + CUDA_CONTEXT


def evaluation_host_bytes(parameters: int) -> float:
    return NEEDS["torch"].memory + CUDA_LIBRARIES + FLOAT * parameters


def disk_bytes(rule: str, shape: Shape, adapter: dict[str, Any] | None, precision: str = "") -> tuple[float, float]:
    """Return what a job leaves on disk, and what it needs there beside that while it runs.

    An adapter is kept with two moments in the last checkpoint, and once more while that is replaced.
    """
    model = FLOAT * shape.parameters
    if rule.startswith("train_") and adapter:
        trained = FLOAT * adapter_parameters(shape, adapter)
        return trained, 6 * trained
    return WIDE.get(precision, KEPT.get(rule, 0)) * model, ASIDE.get(rule, 0) * model
