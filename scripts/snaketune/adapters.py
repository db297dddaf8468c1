"""A technique's model: a base at some precision, with or without an adapter on it."""

from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftModel, PeftType, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from snaketune.errors import UserError

disable_progress_bar()


def load_base(directory: Path, precision: str) -> PreTrainedModel:
    """The model of a local directory with weights at ``precision``: fp32 or nf4.

    nf4 is the 4-bit NormalFloat with double quantization of QLoRA (arXiv 2305.14314).
    """
    quantization = None
    if precision == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    return AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        quantization_config=quantization,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    )


def check_targets(model: PreTrainedModel, adapter: dict[str, Any]) -> None:
    """Raise a UserError where a target module of the adapter matches no module of the model."""
    targets = adapter["options"].get("target_modules") or []
    if isinstance(targets, str):
        return
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [target for target in targets if target.rsplit(".", 1)[-1] not in names]
    if missing:
        raise UserError(
            f"target_modules {', '.join(missing)} match no module of this model; its linear layers are {', '.join(sorted(names))}"
        )


def attach(model: PreTrainedModel, adapter: dict[str, Any]) -> Any:
    """The model with a new adapter: ``{"type": a PeftType, "options": of its config}``."""
    check_targets(model, adapter)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(adapter["type"].upper())](task_type="CAUSAL_LM", **adapter["options"])
    return get_peft_model(model, config)


def load_adapter(base: Path, precision: str, adapter: Path) -> PeftModel:
    """Base and trained adapter, unmerged, as they were in training."""
    return PeftModel.from_pretrained(load_base(base, precision), adapter)


def merge(base: Path, precision: str, adapter: Path) -> PreTrainedModel:
    """Base and adapter as one plain fp32 model.

    A quantized base is dequantized first: the adapter was trained on the dequantized
    weights, and merging into the original ones shifts the logits.
    """
    model = load_base(base, precision)
    if precision == "nf4":
        model = model.dequantize()
    model.float()
    merged: PreTrainedModel = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    return merged
