"""Typed models of one export precision: a file of `config/exports/` each."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, RootModel, model_validator

from snaketune.config.base import Strict

OpTypes = Annotated[list[Literal["MatMul", "Gather"]], Field(min_length=1, description="Gather is the embedding table")]
BlockSize = Annotated[
    Literal[16, 32, 64, 128, 256],
    Field(description="number of weights that share a scale: fewer is more accurate and larger"),
]


class Float16(Strict):
    """No options: inputs, outputs and the cache stay fp32, so that every precision has the same interface."""


class DynamicInt8(Strict):
    op_types: OpTypes = Field(["MatMul", "Gather"])
    per_channel: bool = Field(
        True, description="one scale per output channel of a weight, with 7 bits: kernels without VNNI saturate with 8"
    )
    outliers_in_blocks: bool = Field(
        True,
        description="quantize weights and inputs of down_proj, whose inputs have outliers, in blocks of 32 with a scale each",
    )


class StaticInt8(Strict):
    op_types: OpTypes = Field(["MatMul", "Gather"])
    per_channel: bool = Field(
        True, description="one scale per output channel of a weight, with 7 bits; needs power_of_two: false"
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        "percentile", description="how an activation's range is derived from the calibration rows"
    )
    calibration_rows: PositiveInt = Field(64, description="number of rows, the first of the training split")
    power_of_two: bool = Field(
        False, description="symmetric int8 with power-of-two scales, opset 17, as FPGA tools expect"
    )

    @model_validator(mode="after")
    def _one_shift_a_tensor(self) -> "StaticInt8":
        if self.power_of_two and self.per_channel:
            raise ValueError("power_of_two uses one shift per tensor: set per_channel: false")
        return self


class WeightOnlyInt4(Strict):
    algorithm: Literal["rtn", "hqq", "gptq", "k-quant", "nf4"] = Field(
        "rtn",
        description="rtn rounds to nearest; hqq and k-quant search scales; gptq corrects errors on training rows; nf4 is QLoRA's NormalFloat, with embeddings and head at 8 bits",
    )
    block_size: BlockSize = 32
    symmetric: bool = Field(
        True, description="no zero points; hqq and k-quant need false, gptq is more accurate with false"
    )
    accuracy_level: Literal[0, 1, 2, 3, 4] = Field(
        4, description="4 computes in int8, 1 in fp32; hqq needs 0, the kernel's own choice, and nf4 needs 1"
    )
    calibration_rows: PositiveInt = Field(
        32, description="number of rows, the first of the training split; only gptq uses any"
    )

    @model_validator(mode="after")
    def _what_the_algorithm_can(self) -> "WeightOnlyInt4":
        if self.symmetric and self.algorithm in ("hqq", "k-quant"):
            raise ValueError(f"{self.algorithm} searches zero points: set symmetric: false")
        if self.accuracy_level and self.algorithm == "hqq":
            raise ValueError("hqq's zero points are fractions, which only fp32 can subtract: set accuracy_level: 0")
        if self.algorithm == "nf4" and not (self.symmetric and self.accuracy_level == 1):
            raise ValueError(
                "nf4 has no zero points and is multiplied in fp32: set symmetric: true and accuracy_level: 1"
            )
        return self


class WeightOnlyInt8(Strict):
    """Rounded to nearest."""

    block_size: BlockSize = 32
    symmetric: bool = Field(True, description="no zero points")
    accuracy_level: Literal[0, 1, 2, 3, 4] = Field(4, description="4 computes in int8, 1 in fp32")


class LossBudget(Strict):
    """One of the two; the upper end of its 95 % interval must be within."""

    kl_divergence: PositiveFloat | None = Field(None, description="divergence from fp32 over answer tokens, in nats")
    lost_answers: PositiveFloat | None = Field(
        None, description="drop from fp32 in the share of rows whose every answer token is the most likely one"
    )

    @model_validator(mode="after")
    def _one(self) -> "LossBudget":
        if (self.kl_divergence is None) == (self.lost_answers is None):
            raise ValueError("give either kl_divergence or lost_answers")
        return self


class Auto(WeightOnlyInt4):
    """Bits of each kind of layer, chosen on validation rows; the keys of `weight-only-int4` control how 4 bits are quantized."""

    budget: LossBudget = LossBudget(kl_divergence=0.02)
    bits: list[Literal[4, 8, 32]] = Field([4, 8], min_length=1, description="bits to choose from; 32 is fp32")
    algorithm: Literal["rtn", "hqq", "gptq", "k-quant"] = Field(
        "gptq", description="algorithm for 4 bits; 8 bits are rounded to nearest"
    )
    symmetric: bool = Field(False, description="no zero points at 4 bits; 8 bits never have any")
    validation_rows: PositiveInt = Field(
        128, description="number of rows, the first of the validation split, whose answers are compared"
    )


class Genai(Strict):
    """Options of onnxruntime-genai's model builder; those between `weights` and `spin_microseconds` apply to int4 and int8."""

    weights: Literal["fp32", "int8", "int4"]
    algorithm: Literal["default", "rtn", "k_quant"] = Field(
        "default", description="default and rtn round to nearest; k_quant searches scales and zero points"
    )
    block_size: BlockSize = 32
    symmetric: bool = Field(True, description="false adds a zero point to each block; k_quant always has one")
    accuracy_level: Literal[1, 2, 3, 4] = Field(4, description="4 computes in int8, 1 in fp32")
    quantize_embeddings: bool = Field(
        True, description="also quantize the embedding table, shared with a tied head; int4 only"
    )
    mixed_precision: str | None = Field(
        None,
        pattern=r"^(last_matmul|mixed_layers|linear_attn):int[48](,(last_matmul|mixed_layers|linear_attn):int[48])*$",
        description="parts kept at 8 bits, such as last_matmul:int8 (the head) or mixed_layers:int8; not with default",
    )
    spin_microseconds: PositiveInt | None = Field(
        None,
        description="how long a thread of the package spins while waiting for work; null is the runtime's default, milliseconds; 20 to 200 is faster if other programs need the cores",
    )

    @model_validator(mode="after")
    def _table_of_a_tied_head(self) -> "Genai":
        if self.weights == "fp32" and (useless := self.model_fields_set - {"weights", "spin_microseconds"}):
            raise ValueError(f"weights: fp32 isn't quantized, so leave out {', '.join(sorted(useless))}")
        if self.algorithm == "default" and self.mixed_precision:
            raise ValueError("mixed_precision needs algorithm: rtn or k_quant")
        if self.algorithm == "default" and not self.symmetric and self.quantize_embeddings:
            raise ValueError("symmetric: false needs algorithm: rtn or k_quant, or quantize_embeddings: false")
        return self


class Float16Export(Strict):
    description: str
    method: Literal["float16"]
    options: Float16 = Float16()


class Int8Export(Strict):
    description: str
    method: Literal["dynamic-int8"]
    options: DynamicInt8 = DynamicInt8()


class StaticInt8Export(Strict):
    description: str
    method: Literal["static-int8"]
    options: StaticInt8 = StaticInt8()


class Int4Export(Strict):
    description: str
    method: Literal["weight-only-int4"]
    options: WeightOnlyInt4 = WeightOnlyInt4()


class Int8InBlocksExport(Strict):
    description: str
    method: Literal["weight-only-int8"]
    options: WeightOnlyInt8 = WeightOnlyInt8()


class AutoExport(Strict):
    description: str
    method: Literal["auto"]
    options: Auto = Auto()

    def parity_budget(self) -> dict[str, float]:
        """Return what the parity gate allows on test rows, unless the experiment says otherwise."""
        budget = self.options.budget
        if budget.kl_divergence:
            return {"kl_divergence": budget.kl_divergence}
        return {"smallest_metric_change": -(budget.lost_answers or 0)}


class GenaiAutoExport(AutoExport):
    method: Literal["genai-auto"]  # type: ignore[assignment]

    def parity_budget(self) -> dict[str, float]:
        """Return the same, and what a package's own tokenizer and loop are held to."""
        return super().parity_budget() | {"smallest_prompt_agreement": 1.0, "smallest_stop_agreement": 1.0}


class GenaiExport(Strict):
    description: str
    method: Literal["genai"]
    options: Genai


AnyExport = (
    Float16Export
    | Int8Export
    | StaticInt8Export
    | Int4Export
    | Int8InBlocksExport
    | AutoExport
    | GenaiExport
    | GenaiAutoExport
)


class Export(RootModel[Annotated[AnyExport, Field(discriminator="method")]]):
    """A precision: made of the fp32 ONNX model, or (genai) of the merged model by onnxruntime-genai's builder."""
