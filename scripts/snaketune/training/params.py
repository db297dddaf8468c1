"""Job parameters of the training scripts, and the constants that memory estimates share with them.

Standard library only: whoever plans a run reads these without importing torch.
"""

from typing import Any, NotRequired, TypedDict

# Rows of a validation batch: no gradients are kept, so memory is not the limit.
VALIDATION_ROWS = 32
# Largest DeepSpeed communication bucket, in elements. Buckets are allocated whole: DeepSpeed's
# default of 5e8 elements would dwarf a small model.
BUCKET_ELEMENTS = 50_000_000
# Pre-training's schedule; techniques have theirs in config/techniques/.
PRETRAINING_WARMUP_SHARE = 0.05
PRETRAINING_MAX_GRAD_NORM = 1.0


class AdapterParams(TypedDict):
    """A peft tuner: its type as in config/technique.py, and the options of its peft configuration."""

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
    epochs: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    keep_weights: bool
    steps: NotRequired[int]


class PretrainingParams(TypedDict):
    """Parameters of pretrain_model.py; without pre-training only the first five and the seed."""

    vocabulary: int
    context: int
    architecture: dict[str, Any]
    tokens: int
    threads: int
    held_out_tokens: int
    characters: int
    sequence_length: int
    batch_rows: int
    learning_rate: float
    weight_decay: float
    seed: int
