"""Execution engines: one process, DDP or DeepSpeed, each with its optimizer."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.tracking import GeneralTracker
from bitsandbytes.optim.adamw import AdamW8bit
from transformers.optimization import Adafactor

from snaketune.core.errors import UserError
from snaketune.training.params import BUCKET_ELEMENTS, HALF, TrainingParams, computed_in

# Parts of the names of (IA)³'s factors and DoRA's magnitudes.
SCALING = ("ia3_l", "magnitude_vector")


def accelerator_for(recipe: TrainingParams, elements: int, trackers: Sequence[GeneralTracker] = ()) -> Accelerator:
    """Return the Accelerator of a job; ``elements`` is the model's size, an upper bound for buckets.

    At 16 bits, matrix products run in them (autocast); trained weights stay fp32 with every engine,
    and fp16 has a gradient scaler.

    Raises:
        UserError: the process was started with a different number of ranks, or the precision needs a GPU.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks != recipe["world_size"]:
        raise UserError(
            f"this job needs {recipe['world_size']} ranks, but {ranks} were started: use scripts/launch.py --ranks {recipe['world_size']}"
        )
    cpu, compute = not torch.cuda.is_available(), computed_in(recipe)
    if cpu and compute in ("tf32", "fp16"):
        raise UserError(
            f"computing in {compute} needs a GPU, and there is none here: set training.compute_precision (or base_precision of the technique) to fp32 or bf16"
        )
    torch.backends.cuda.matmul.allow_tf32 = compute == "tf32"
    if recipe["engine"]["type"] != "deepspeed":
        return Accelerator(
            cpu=cpu, mixed_precision=compute if compute in HALF else "no", log_with=list(trackers) or None
        )
    import deepspeed.ops
    from accelerate import DeepSpeedPlugin

    # On CPUs DeepSpeed would compile a shared-memory reduction on first use: two processor minutes and a C++
    # compiler. Without it, it uses gloo.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    offload = recipe["engine"]["offload"]
    bucket = min(BUCKET_ELEMENTS, elements)
    zero: dict[str, Any] = {
        "stage": recipe["engine"]["zero_stage"],
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        # By default stage 3 keeps up to 1e9 elements unsharded on each rank: a small model would not be sharded at all.
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    if offload != "none":
        zero["offload_optimizer"] = {"device": offload}
    config = {
        "train_micro_batch_size_per_gpu": recipe["micro_batch_rows"],
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe["max_grad_norm"],
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Accelerate's own bf16 setting would make DeepSpeed keep the weights in bf16.
        "torch_autocast": {"enabled": compute == "bf16", "dtype": "bfloat16"},
    }
    # Accelerator(cpu=True) silently ignores DeepSpeed, so the process group must exist before it.
    PartialState(cpu=cpu)
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config), log_with=list(trackers) or None)
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise RuntimeError(f"DeepSpeed was asked for, but accelerate runs {accelerator.distributed_type}")
    return accelerator


def groups_of(model: torch.nn.Module, recipe: TrainingParams) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups; ``rate`` is that of their learning rate over the plan's.

    Vectors and factors that scale a layer aren't decayed, as in transformers' Trainer: decay would pull a norm or a
    magnitude to 0, where the layer vanishes. LoRA+ trains B faster than A (arXiv 2402.12354).
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scales = parameter.ndim < 2 or any(part in name for part in SCALING)
            decay = 0.0 if scales else recipe["weight_decay"]
            rate = recipe.get("loraplus_lr_ratio", 1.0) if "lora_B" in name else 1.0
            group = groups.setdefault((decay, rate), {"params": [], "weight_decay": decay, "rate": rate})
            group["params"].append(parameter)
    return list(groups.values())


def optimizer_for(model: torch.nn.Module, recipe: TrainingParams) -> torch.optim.Optimizer:
    """Return the technique's optimizer over the trainable parameters; AdamW is torch's fused one, whatever the engine.

    DeepSpeed's CPU Adam is compiled on first use: two processor minutes and a C++ compiler.
    bitsandbytes warns where a paged optimizer isn't, on a CPU.
    """
    parameters = groups_of(model, recipe)
    common: dict[str, Any] = {"lr": recipe["learning_rate"], "weight_decay": recipe["weight_decay"]}
    adam = common | {"betas": (0.9, 0.999), "eps": 1e-8}
    match recipe.get("optimizer", "adamw"):
        case "adamw":
            return torch.optim.AdamW(parameters, fused=True, **adam)
        case "adafactor":
            # The plan sets the rate.
            return Adafactor(parameters, relative_step=False, scale_parameter=False, **common)
        case name:
            return AdamW8bit(parameters, is_paged=name == "paged-adamw-8bit", **adam)
