"""Typed model of ``training_config.yaml``, the options of KAITO's tuning image (v0.12).

It has only the options that a run sets: the image reads the file as command line arguments and
exits on an unknown one.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from snaketune.config.base import Share, Strict

# All seven presets fuse q, k and v, and gate and up; the operator's default names some of them unfused.
LAYERS = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
MOUNTED = ("/mnt/config", "/mnt/data")
Dtype = Literal["float32", "bfloat16"]


class ModelConfig(Strict):
    torch_dtype: Dtype
    local_files_only: Literal[True] = True
    trust_remote_code: Literal[False] = False


class QuantizationConfig(Strict):
    load_in_4bit: Annotated[bool, Field(strict=True)]
    load_in_8bit: Annotated[bool, Field(strict=True)] = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = True
    bnb_4bit_compute_dtype: Dtype = "float32"

    @model_validator(mode="after")
    def _one_width(self) -> "QuantizationConfig":
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit can't both be true")
        return self


class LoraConfig(Strict):
    r: PositiveInt
    lora_alpha: PositiveInt = Field(description="a whole number: the operator's argument parser accepts no other")
    lora_dropout: Share
    target_modules: list[Literal[tuple(sorted(LAYERS))]] = Field(min_length=1)  # type: ignore[valid-type]
    use_dora: bool = False
    use_rslora: bool = False


class TrainingArguments(Strict):
    """The options of trl's SFTConfig that a run sets; an unquoted ``no`` would arrive as False."""

    output_dir: str
    num_train_epochs: PositiveInt
    per_device_train_batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(ge=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    lr_scheduler_type: Annotated[str, Field(strict=True)]
    lr_scheduler_kwargs: Annotated[str, Field(strict=True, description="JSON in a string")]
    optim: Annotated[str, Field(strict=True)]
    seed: int
    data_seed: int
    bf16: bool
    max_length: PositiveInt
    packing: Literal[False]
    logging_strategy: Annotated[str, Field(strict=True)]
    logging_steps: PositiveInt
    save_strategy: Literal["no", "steps", "epoch"]
    save_total_limit: PositiveInt
    save_only_model: bool
    report_to: Literal["none"] = Field(description="no telemetry")

    @model_validator(mode="after")
    def _under_mnt(self) -> "TrainingArguments":
        parts = self.output_dir.rstrip("/").split("/")
        if parts[:2] != ["", "mnt"] or len(parts) < 3 or ".." in parts or self.output_dir.startswith(MOUNTED):
            raise ValueError(f"output_dir must be a folder below /mnt other than {' and '.join(MOUNTED)}")
        return self


class DatasetConfig(Strict):
    dataset_extension: Literal["json"] = "json"
    dataset_path: Annotated[str, Field(pattern=r"^data/[^/]")] | None = Field(None, description="below /mnt")
    shuffle_dataset: Literal[False] = Field(False, description="the operator shuffles without a seed")
    train_test_split: Literal[1] = Field(1, description="1 trains on every row")


class DataCollator(Strict):
    mlm: Literal[False] = False


class TrainingConfig(Strict):
    ModelConfig: ModelConfig
    QuantizationConfig: QuantizationConfig
    LoraConfig: LoraConfig
    TrainingArguments: TrainingArguments
    DatasetConfig: DatasetConfig
    DataCollator: DataCollator


class TrainingFile(Strict):
    training_config: TrainingConfig
