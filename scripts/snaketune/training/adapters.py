"""A technique's model: a base at some precision, with or without an adapter on it."""

from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftModel, PeftModelForCausalLM, PeftType, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from snaketune.core import files
from snaketune.core.errors import UserError
from snaketune.training.prefix import Layer

disable_progress_bar()


def load_base(directory: Path, precision: str, compute: str = "fp32") -> PreTrainedModel:
    """The model of a local directory with weights at ``precision``: fp32 or nf4.

    nf4 is the 4-bit NormalFloat with double quantization of QLoRA (arXiv 2305.14314), whose
    weights are multiplied at ``compute``, fp32 or bf16.
    """
    quantization = None
    if precision == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if compute == "bf16" else torch.float32,
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


class PrefixModel(PeftModelForCausalLM):
    """A base that goes on from trained keys and values (arXiv 2101.00190), at one distance from each row.

    peft's own forward drops ``position_ids``: rows aligned to the right would stand as far from
    the prefix as they have padding.
    """

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """What the base returns; the three tensors are (rows, length) and know nothing of the prefix."""
        virtual = self.active_peft_config.num_virtual_tokens
        if attention_mask is not None:
            attention_mask = torch.nn.functional.pad(attention_mask, (virtual, 0), value=1)
        return self.base_model(
            input_ids=input_ids,
            position_ids=position_ids + virtual,
            attention_mask=attention_mask,
            past_key_values=self.get_prompt(len(input_ids)),
            **inputs,
        )


def attach(model: PreTrainedModel, adapter: dict[str, Any]) -> Any:
    """The model with a new adapter: ``{"type": of `kinds.py`, "options": of its peft config}``."""
    check_targets(model, adapter)
    prefix = adapter["type"] == "prefix"
    kind = PeftType.PREFIX_TUNING if prefix else PeftType(adapter["type"].upper())
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **adapter["options"])
    if prefix:
        return PrefixModel(model, config)
    attached = get_peft_model(model, config)
    if adapter["options"].get("init_lora_weights") == "pissa":
        _fix_signs(attached)
    return attached


@torch.no_grad()
def _fix_signs(model: torch.nn.Module) -> None:
    """A pair of singular vectors has no sign of its own: make the largest entry of the right one positive."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name, module in layer.lora_A.items():
                right, left = module.get_parameter("weight"), layer.lora_B[name].get_parameter("weight")
                signs = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
                right.mul_(signs)
                left.mul_(signs.T)


def taken_from_base(model: torch.nn.Module, adapter: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What PiSSA (arXiv 2404.02948) took from the base's weights at its start, by name; nothing of any other adapter."""
    if adapter["options"].get("init_lora_weights") != "pissa":
        return {}
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def save_adapter(model: PeftModel, weights: dict[str, Any], taken: dict[str, torch.Tensor], directory: Path) -> None:
    """Write ``weights``, the model's whole state, as an adapter of the base that training started from.

    What PiSSA took from the base goes back as a second half of each matrix, of the opposite sign:
    W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]. (peft's own conversion reads the adapter's start
    from the model, where ZeRO-3 keeps but a share of it.)
    """
    for name, start in taken.items():
        start = start.to(weights[name])
        weights[name] = (
            torch.cat([weights[name], start], 0) if ".lora_A." in name else torch.cat([weights[name], -start], 1)
        )
    model.save_pretrained(str(directory), state_dict=weights)
    # The model card names packages and paths: it isn't part of what equal runs share.
    (directory / "README.md").unlink(missing_ok=True)
    configuration = files.read_json(directory / "adapter_config.json")
    if taken:
        configuration["r"] *= 2
        configuration["lora_alpha"] *= 2**0.5 if configuration["use_rslora"] else 2
        configuration["init_lora_weights"] = True
    # peft holds lists as sets, in another order each time.
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in configuration.items()}
    files.write_json(directory / "adapter_config.json", ordered)


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


def prefix_of(model: PeftModel) -> list[Layer]:
    """Keys and values, each (heads, virtual tokens, head size) and fp32, of each layer of a trained prefix."""
    with torch.no_grad():
        cache: Any = model.get_prompt(1)
    return [(one.keys[0].float().numpy().copy(), one.values[0].float().numpy().copy()) for one in cache.layers]
