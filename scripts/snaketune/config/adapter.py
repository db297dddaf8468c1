"""Typed models of a technique's adapter, and the layers that it changes."""

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import ValidationInfo

from snaketune.config import peft_methods
from snaketune.config.base import Share, Strict, optional

# The linear layers of a block by transformers' model_type, in the order in which they compute.
LINEAR_LAYERS = {
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
    **{
        key: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        for key in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite")
    },
}
ALL_LINEAR: Literal["all-linear"] = "all-linear"
Names = Annotated[list[str], Field(min_length=1)]
# A technique says which layers it changes; what that is in a model is in the recipe of each job.
Targets = Literal["all-linear"] | Names | dict[str, Names]
TARGETS = "all-linear, or a list of linear layers, each of which must exist, or one such list per model_type"


class LoraOptions(Strict):
    r: PositiveInt = Field(8, description="rank: higher trains more parameters")
    lora_alpha: PositiveFloat = Field(16, description="the update is scaled by lora_alpha / r")
    lora_dropout: Share = Field(0.0, description="dropout on the inputs of A in training")
    target_modules: Targets = Field(ALL_LINEAR, description=TARGETS)
    use_dora: bool = Field(False, description="weight-decomposed LoRA (arXiv 2402.09353)")
    use_rslora: bool = Field(False, description="scale the update by lora_alpha / sqrt(r) (arXiv 2312.03732)")
    init_lora_weights: Literal[True, "gaussian", "pissa"] = Field(
        True,
        description="true starts with a zero update; pissa trains the principal singular vectors (arXiv 2404.02948)",
    )
    modules_to_save: Names | None = optional(
        None,
        "modules that are fully trained, given by the ends of their names: norm is every norm; lm_head only if it isn't tied to the embeddings",
    )


class Ia3Options(Strict):
    target_modules: Targets = Field(ALL_LINEAR, description=f"layers whose outputs are rescaled: {TARGETS}")
    feedforward_modules: list[str] = Field(
        default_factory=list, description="those of target_modules whose inputs are rescaled instead"
    )

    @model_validator(mode="after")
    def _feedforward_is_a_target(self) -> "Ia3Options":
        listed = isinstance(self.target_modules, list)
        if listed and (extra := set(self.feedforward_modules) - set(self.target_modules)):
            raise ValueError(f"feedforward_modules {', '.join(sorted(extra))} must also be in target_modules")
        return self


class VeraOptions(Strict):
    r: PositiveInt = Field(256, description="rank of the shared random projections: higher trains more parameters")
    target_modules: Targets = Field(ALL_LINEAR, description=TARGETS)
    d_initial: PositiveFloat = Field(0.1, description="initial value of the factors between the two projections")
    projection_prng_key: int = Field(0, ge=0, description="seed of the projections, which aren't trained")
    vera_dropout: Share = Field(0.0, description="dropout on the adapter's inputs in training")
    save_projection: bool = Field(
        True, description="false stores only their seed in the adapter: smaller, but tied to torch's generator"
    )


class PrefixOptions(Strict):
    num_virtual_tokens: PositiveInt = Field(
        20, description="number of trained keys and values before the text, in each layer"
    )
    prefix_projection: bool = Field(
        False, description="train the prefix through a two-layer network that is then dropped"
    )
    encoder_hidden_size: PositiveInt | None = Field(
        None, description="width of that network; by default the width of the keys"
    )

    @model_validator(mode="after")
    def _width_of_a_network(self) -> "PrefixOptions":
        if self.encoder_hidden_size and not self.prefix_projection:
            raise ValueError("encoder_hidden_size needs prefix_projection: true")
        return self


class Lora(Strict):
    type: Literal["lora"]
    options: LoraOptions


class Ia3(Strict):
    type: Literal["ia3"]
    options: Ia3Options


class Vera(Strict):
    type: Literal["vera"]
    options: VeraOptions


class Prefix(Strict):
    type: Literal["prefix"]
    options: PrefixOptions


class Other(Strict):
    """Any other method of peft, whose options are peft's own."""

    type: str = Field(
        description="peft's name of the method; docs/techniques.md lists all",
        json_schema_extra={"not": {"enum": [*peft_methods.OWN.values()]}},
    )
    options: dict[str, Any] = Field(description="fields of the method's configuration class in peft")

    @field_validator("type")
    @classmethod
    def _can_be_trained(cls, name: str) -> str:
        return peft_methods.check_name(name)

    @field_validator("options")
    @classmethod
    def _known_to_peft(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if method := info.data.get("type"):
            peft_methods.check_options(method, given)
            TypeAdapter(Targets).validate_python(given.get("target_modules", ALL_LINEAR))
        return given


def _kind(adapter: Any) -> str:
    name = adapter.get("type") if isinstance(adapter, dict) else getattr(adapter, "type", None)
    return str(name) if name in peft_methods.OWN.values() else "other"


Adapter = Annotated[
    Annotated[Lora, Tag("lora")]
    | Annotated[Ia3, Tag("ia3")]
    | Annotated[Vera, Tag("vera")]
    | Annotated[Prefix, Tag("prefix")]
    | Annotated[Other, Tag("other")],
    Discriminator(_kind),
]
