"""Execution engines: one process, DDP or DeepSpeed, each with its optimizer."""

import os
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState

from snaketune.core.errors import UserError
from snaketune.training.params import BUCKET_ELEMENTS, TrainingParams


def accelerator_for(recipe: TrainingParams, elements: int) -> Accelerator:
    """Return the Accelerator of a job; ``elements`` is the model's size, an upper bound for buckets.

    With ``compute_precision: bf16`` matrix products run in bfloat16 (autocast); trained weights and
    optimizer states stay fp32 with every engine.

    Raises:
        UserError: the process was started with a different number of ranks.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks != recipe["world_size"]:
        raise UserError(
            f"this job needs {recipe['world_size']} ranks, but {ranks} were started: use scripts/launch.py --ranks {recipe['world_size']}"
        )
    cpu, bf16 = not torch.cuda.is_available(), recipe["compute_precision"] == "bf16"
    if recipe["engine"]["type"] != "deepspeed":
        return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")
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
        "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
    }
    # Accelerator(cpu=True) silently ignores DeepSpeed, so the process group must exist before it.
    PartialState(cpu=cpu)
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise RuntimeError(f"DeepSpeed was asked for, but accelerate runs {accelerator.distributed_type}")
    return accelerator


def optimizer_for(model: torch.nn.Module, recipe: TrainingParams) -> torch.optim.Optimizer:
    """Return torch's fused AdamW over the trainable parameters, whatever the engine.

    DeepSpeed's CPU Adam is compiled on first use: two processor minutes and a C++ compiler.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {
        "lr": recipe["learning_rate"],
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": recipe["weight_decay"],
    }
    return torch.optim.AdamW(parameters, fused=True, **options)
