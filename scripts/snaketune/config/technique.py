"""Typed model of a technique: a file of `config/techniques/`."""

from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from snaketune.config import peft_methods
from snaketune.config.adapter import ALL_LINEAR, LINEAR_LAYERS, Adapter, Lora, Other
from snaketune.config.base import Share, Strict, optional
from snaketune.config.peft_methods import Ends
from snaketune.core.precisions import exported

# transformers' schedules by their names (https://huggingface.co/docs/transformers/main_classes/optimizer_schedules), and the options of each.
SCHEDULES: dict[str, set[str]] = {
    "linear": set(),
    "cosine": {"num_cycles"},
    "cosine_with_restarts": {"num_cycles"},
    "cosine_with_min_lr": {"num_cycles", "min_lr", "min_lr_rate"},
    "polynomial": {"lr_end", "power"},
    "constant": set(),
    "constant_with_warmup": set(),
    "inverse_sqrt": {"timescale"},
}
# Keys of a technique, and of an experiment's `training`, that other trainers than train.py don't get.
OF_THE_LOOP = {
    "lr_scheduler_type", "lr_scheduler_kwargs", "loraplus_lr_ratio", "neftune_noise_alpha", "max_steps", "eval_steps",
    "load_best_model_at_end", "early_stopping_patience", "label_smoothing_factor", "start_from",
}  # fmt: skip
# Each turns off what train.py computes faster than peft and transformers do, with the same result up to rounding.
FAST_PATHS = {"share_prompts", "light_lora", "light_dora", "skip_logits"}
if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]


class Engine(Strict):
    type: Literal["torch", "deepspeed"] = Field("torch", description="torch uses DDP if there are several ranks")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0, description="what ZeRO shards over the ranks: 1 optimizer states, 2 also gradients, 3 also weights"
    )
    offload: Literal["none", "cpu"] = Field("none", description="cpu keeps the optimizer states in host memory")

    @model_validator(mode="after")
    def _zero_needs_deepspeed(self) -> "Engine":
        if self.type == "torch" and (self.zero_stage or self.offload != "none"):
            raise ValueError("zero_stage and offload need type: deepspeed")
        return self


class Technique(Strict):
    """One point on the three axes adapter, base precision and engine."""

    description: str = Field(description="shown in reports and model cards")
    adapter: Adapter | None = Field(None, description="without an adapter, all weights are trained")
    base_precision: str = Field(
        "fp32",
        pattern=r"^(fp32|bf16|fp16|int8|nf4|export:[\w-]+)$",
        description="precision of the frozen weights under an adapter; a 16-bit base also computes and is merged in its format; export:int4 trains on the weights of that weight-only export, which is shipped once, with an adapter per run",
    )
    engine: Engine = Engine()
    world_size: PositiveInt = Field(
        1, description="number of ranks; the global batch, and so the result, doesn't depend on it"
    )
    threads: PositiveInt = Field(1, description="threads per rank")
    learning_rate: PositiveFloat | dict[str, PositiveFloat] = Field(
        description="one number, or one per model and a `default` for the others"
    )
    weight_decay: float = Field(
        0.0, ge=0, description="applied to matrices, not to norms, biases, (IA)³'s factors or DoRA's magnitudes"
    )
    warmup_share: Share = Field(0.05, description="share of steps in which the learning rate rises")
    lr_scheduler_type: ScheduleName | None = optional(
        None, "a transformers schedule after the warm-up; by default a cosine to a tenth of the rate"
    )
    lr_scheduler_kwargs: dict[str, float] = Field(
        default_factory=dict,
        exclude_if=lambda found: not found,
        description="options of that schedule, such as num_cycles",
    )
    loraplus_lr_ratio: PositiveFloat | None = optional(
        None, "ratio of the learning rate of LoRA's B to that of A (LoRA+, arXiv 2402.12354, which uses 16)"
    )
    neftune_noise_alpha: PositiveFloat | None = optional(
        None,
        "noise on the embeddings in training (NEFTune, arXiv 2310.05914, which uses 5 to 15); rows are then padded",
    )
    start_from: str | None = optional(
        None,
        "directory of an adapter with the same base, method and options, such as results/runs/…/adapter, whose weights training starts from",
    )
    max_grad_norm: float = Field(1.0, ge=0, description="gradient clipping; 0 turns it off")
    micro_batch_rows: PositiveInt = Field(16, description="rows in memory at once on each rank; more is faster")
    micro_batch_tokens: PositiveInt | None = optional(
        None, "also limits the tokens computed at once, padding included; a longer row gets its own micro-batch"
    )
    share_prompts: bool | None = optional(
        None,
        "compute shared beginnings of the rows in a micro-batch once, without padding; by default true on a CPU without dropout, because rows would share its mask",
    )
    light_lora: bool = optional(
        True,
        "apply LoRA's scale to the few outputs of A instead of the many of B; false uses peft's own layers",
    )
    light_dora: bool = optional(
        True, "compute DoRA at LoRA's cost if there is no dropout; false uses peft's own layers"
    )
    skip_logits: bool = optional(
        True,
        "compute logits only where an answer token is predicted, in chunks if there are many; false computes all at once",
    )
    stream_merge: bool = optional(
        True, "merge one weight at a time if the base's file allows; false loads the whole model"
    )
    gradient_checkpointing: bool | Literal["feed-forward"] = optional(
        False,
        "recompute activations for the backward pass instead of storing them: of whole blocks (true), or only products of the feed-forward layers",
    )
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw-8bit", "adafactor"] = optional(
        "adamw",
        "8bit variants are bitsandbytes' (arXiv 2110.02861); paged moves states to host memory when GPU memory runs short",
    )

    @model_validator(mode="after")
    def _possible(self) -> "Technique":
        base, prefix, deepspeed = self.base_precision, self.ends == "prefix", self.engine.type == "deepspeed"
        other = self.adapter.type if isinstance(self.adapter, Other) else None
        pissa = isinstance(self.adapter, Lora) and self.adapter.options.init_lora_weights == "pissa"
        if base != "fp32" and self.adapter is None:
            raise ValueError(
                f"base_precision {base} needs an adapter: without one, all weights are trained in fp32, and training.compute_precision sets the precision of their products"
            )
        if base != "fp32" and not self.merges:
            raise ValueError(
                f"{'a prefix' if prefix else other} needs its fp32 base at inference, so it can't be trained on base_precision {base}"
            )
        if other and (base not in ("fp32", "bf16", "fp16") or deepspeed):
            raise ValueError(
                f"{other} needs a base in floats and engine.type: torch; only lora, ia3 and vera also train on a quantized base and with DeepSpeed"
            )
        if base != "fp32" and pissa and not self.export:
            raise ValueError(f"init_lora_weights: pissa changes the base's weights, which {base} can't hold: use fp32")
        whole = isinstance(self.adapter, Lora) and self.adapter.options.modules_to_save
        if whole and (base != "fp32" or deepspeed or pissa):
            raise ValueError("modules_to_save needs base_precision: fp32, engine.type: torch and no pissa")
        if base == "int8" and isinstance(self.adapter, Lora) and self.adapter.options.use_dora:
            raise ValueError("use_dora can't be trained on base_precision int8: use nf4 or 16 bits")
        if base in ("bf16", "fp16", "int8") and deepspeed:
            raise ValueError(f"base_precision {base} needs engine.type: torch, as DeepSpeed would make it fp32")
        if self.optimizer != "adamw" and deepspeed:
            raise ValueError(f"optimizer {self.optimizer} needs engine.type: torch: DeepSpeed does not support it")
        if self.gradient_checkpointing == "feed-forward" and deepspeed:
            raise ValueError("gradient_checkpointing: feed-forward needs engine.type: torch: use true with DeepSpeed")
        if self.gradient_checkpointing is True and prefix:
            raise ValueError("gradient_checkpointing: true would lose a prefix's keys and values: use feed-forward")
        known = SCHEDULES.get(self.lr_scheduler_type or "", set())
        if unknown := sorted(self.lr_scheduler_kwargs.keys() - known):
            has = ", ".join(sorted(known)) or "no options"
            raise ValueError(
                f"lr_scheduler_kwargs: {self.lr_scheduler_type or 'without lr_scheduler_type there'} has {has}, not {unknown[0]}"
            )
        if self.loraplus_lr_ratio and not isinstance(self.adapter, Lora):
            raise ValueError("loraplus_lr_ratio needs an adapter of type: lora, whose B it speeds up")
        if self.start_from and (self.adapter is None or prefix or pissa):
            own = (
                "all weights are trained"
                if self.adapter is None
                else "this is a prefix"
                if prefix
                else "pissa changes it"
            )
            raise ValueError(f"start_from needs an adapter on an unchanged base, but {own}: leave it out")
        if self.neftune_noise_alpha and self.share_prompts:
            raise ValueError(
                "share_prompts: true would give all rows the same noise of neftune_noise_alpha: leave one out"
            )
        if isinstance(self.learning_rate, dict) and "default" not in self.learning_rate:
            raise ValueError("learning_rate needs the key `default`")
        return self

    def recipe(self, family: str) -> dict[str, Any]:
        """Return the parameters for models of a family, with the names of the layers that the adapter changes.

        Raises:
            KeyError: nothing says which they are.
        """
        found = self.model_dump(exclude={"description", "stream_merge"})
        if isinstance(self.adapter, Other):
            found["adapter"]["options"] = peft_methods.with_defaults(self.adapter.type, self.adapter.options)
        options = found["adapter"]["options"] if found["adapter"] else {}
        chosen = options.get("target_modules")
        chosen = LINEAR_LAYERS if chosen == ALL_LINEAR else chosen
        if isinstance(chosen, dict):
            options["target_modules"] = list(chosen[family])
        return found

    @property
    def export(self) -> str | None:
        """Return the export on whose numbers the adapter is trained, and beside which it is shipped, or None."""
        return exported(self.base_precision)

    @property
    def ends(self) -> Ends:
        """Return what training ends in."""
        return peft_methods.ends(self.adapter.type) if self.adapter else "merged"

    @property
    def merges(self) -> bool:
        """Return True if training ends in one plain model."""
        return self.ends == "merged"


class Hosted(Protocol):
    """A technique that a service trains and keeps: it has a row in the summary, but no weights here."""

    @property
    def row_model(self) -> str: ...

    @property
    def asks(self) -> bool: ...

    @property
    def asks_untuned(self) -> bool: ...
