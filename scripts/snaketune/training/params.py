"""Job parameters of the training scripts, and the constants that memory estimates share with them.

Standard library only: whoever plans a run reads these without importing torch.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

# Most rows and, with padding, tokens of a validation batch: it keeps nothing for a backward pass.
VALIDATION_ROWS, VALIDATION_TOKENS = 32, 16384
# Most logits in memory at once, 64 MiB in fp32: above that the loss is computed in chunks.
LOGITS_AT_ONCE = 2**24
# Formats that a base can have and be computed in.
HALF = ("bf16", "fp16")
# Linear layers whose outputs an activation keeps for its backward pass. DoRA keeps outputs for its magnitude's gradient, too, but computes
# those again that attention reads: half of the bytes beyond LoRA's, for a few percent of a step.
ACTIVATED = ("gate_proj", "up_proj", "gate_up_proj", "fc1")
ATTENDED = ("q_proj", "k_proj", "v_proj", "qkv_proj")
# Largest DeepSpeed communication bucket, in elements. Buckets are allocated whole: DeepSpeed's
# default of 5e8 elements would dwarf a small model.
BUCKET_ELEMENTS = 50_000_000
# Pre-training's schedule; techniques have theirs in config/techniques/.
PRETRAINING_WARMUP_SHARE = 0.05
PRETRAINING_MAX_GRAD_NORM = 1.0


class AdapterParams(TypedDict):
    """A peft tuner: its type as in config/adapter.py, and the options of its peft configuration."""

    type: str
    options: dict[str, Any]


class EngineParams(TypedDict):
    """What runs the ranks: `torch` (one process or DDP) or `deepspeed`."""

    type: str
    zero_stage: int
    offload: str


class TrainingParams(TypedDict):
    """Parameters of train.py."""

    adapter: AdapterParams | None
    base_precision: str
    compute_precision: str
    engine: EngineParams
    world_size: int
    threads: int
    batch_rows: int
    micro_batch_rows: int
    micro_batch_tokens: NotRequired[int]
    gradient_checkpointing: NotRequired[bool | str]
    share_prompts: NotRequired[bool]
    light_lora: NotRequired[bool]
    light_dora: NotRequired[bool]
    skip_logits: NotRequired[bool]
    optimizer: NotRequired[str]
    lr_scheduler_type: NotRequired[str]
    lr_scheduler_kwargs: NotRequired[dict[str, float]]
    loraplus_lr_ratio: NotRequired[float]
    neftune_noise_alpha: NotRequired[float]
    start_from: NotRequired[str]
    start_digests: NotRequired[dict[str, str]]
    epochs: int
    max_steps: NotRequired[int]
    eval_steps: NotRequired[int]
    load_best_model_at_end: NotRequired[bool]
    early_stopping_patience: NotRequired[int]
    label_smoothing_factor: NotRequired[float]
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    keep_weights: bool
    steps: NotRequired[int]


def computed_in(recipe: Mapping[str, Any]) -> str:
    """Return the format of matrix products: that of a 16-bit base, or else ``compute_precision``."""
    base: str = recipe["base_precision"]
    return base if base in HALF else recipe["compute_precision"]


class PretrainingParams(TypedDict):
    """Parameters of pretrain_model.py; without pre-training only the first five and the seed."""

    vocabulary: int
    context: int
    architecture: dict[str, Any]
    embeddings: NotRequired[int]
    model_type: NotRequired[str]
    tokens: int
    threads: int
    held_out_tokens: int
    characters: int
    sequence_length: int
    batch_rows: int
    learning_rate: float
    weight_decay: float
    seed: int
