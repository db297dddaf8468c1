"""Attach, save, load and merge adapters."""

from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftModel, PeftModelForCausalLM, PeftType, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from transformers import PreTrainedModel

from snaketune.core import files
from snaketune.core.errors import UserError
from snaketune.training import dora, lora
from snaketune.training.base_model import dtype_of, load_base
from snaketune.training.params import HALF, AdapterParams
from snaketune.training.prefix import Layer


def check_targets(model: PreTrainedModel, adapter: AdapterParams) -> None:
    """Raise a UserError if a target module of the adapter matches no linear layer of the model."""
    every = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if unknown := [
        name for name in adapter["options"].get("modules_to_save", []) if not any(one.endswith(name) for one in every)
    ]:
        raise UserError(f"modules_to_save: this model has no {unknown[0]}")
    targets = adapter["options"].get("target_modules") or []
    if isinstance(targets, str):
        return
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [target for target in targets if target.rsplit(".", 1)[-1] not in names]
    if missing:
        raise UserError(
            f"target_modules {', '.join(missing)} match no linear layer of this model; it has {', '.join(sorted(names))}"
        )


def start_of(model: PeftModel, rows: int) -> Any:
    """Return the cache that rows start from: trained keys and values, or those that the base computes of trained embeddings."""
    found: Any = model.get_prompt(1 if model.active_peft_config.peft_type != PeftType.PREFIX_TUNING else rows)
    if isinstance(found, torch.Tensor):
        # Neither the attention that knows of rows in a sequence, nor a loss that waits for the decoder's output.
        causal: Any = model.base_model
        attention, causal.config._attn_implementation = causal.config._attn_implementation, "sdpa"
        found = causal.base_model.forward(inputs_embeds=found, use_cache=True).past_key_values
        causal.config._attn_implementation = attention
        found.batch_repeat_interleave(rows)
    return found


class PrefixModel(PeftModelForCausalLM):
    """Base model that starts from trained keys and values (prefix tuning, arXiv 2101.00190).

    Trained embeddings (prompt tuning, arXiv 2104.08691; P-tuning, arXiv 2103.10385) become such in each forward pass.
    peft's own forward drops ``position_ids``, so the distance between a left-padded row and the
    prefix would grow with the row's padding.
    """

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the base; the three tensors have shape (rows, length), without the prefix."""
        virtual = self.active_peft_config.num_virtual_tokens
        if attention_mask is not None:
            attention_mask = torch.nn.functional.pad(attention_mask, (virtual, 0), value=1)
        return self.base_model(
            input_ids=input_ids,
            position_ids=position_ids + virtual,
            attention_mask=attention_mask,
            past_key_values=start_of(self, len(input_ids)),
            **inputs,
        )


def attach(
    model: PreTrainedModel,
    adapter: AdapterParams,
    steps: int = 0,
    light_dora: bool = True,
    start: Path | None = None,
    light_lora: bool = True,
) -> Any:
    """Return the model with a new adapter, untrained or with the weights of that in ``start``.

    AdaLoRA plans its ranks for ``steps`` of training. Without ``light_dora`` or ``light_lora``, peft computes such layers.

    Raises:
        UserError: peft doesn't take the adapter's options, or not with this model; or those in ``start`` don't fit it.
    """
    check_targets(model, adapter)
    kind = PeftType("PREFIX_TUNING" if adapter["type"] == "prefix" else adapter["type"].upper())
    schedule: dict[str, Any] = {"total_step": steps} if kind == PeftType.ADALORA else {}
    try:
        config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **adapter["options"], **schedule)
        if config.is_prompt_learning:
            return PrefixModel(model, config)
        attached = get_peft_model(model, config)
        if start:
            try:
                found = attached.load_adapter(str(start), "default", is_trainable=True)
            except SafetensorError as error:
                raise UserError(f"{start}: adapter_model.safetensors is damaged: {error}") from error
            if found.unexpected_keys:
                raise UserError(f"{start}: this model has no {found.unexpected_keys[0]}: it is an adapter of another")
    except RuntimeError as error:
        if start and "size mismatch" in str(error):
            shapes = str(error).splitlines()[-1].strip()
            raise UserError(f"{start}: an adapter of another base or rank: {shapes}") from error
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"adapter.options: peft's {adapter['type']} doesn't fit this model: {error}") from error
    if adapter["options"].get("init_lora_weights") == "pissa":
        _fix_signs(attached)
    if light_dora:
        dora.lighten(attached)
    if light_lora:
        lora.lighten(attached)
    return attached


@torch.no_grad()
def _fix_signs(model: torch.nn.Module) -> None:
    """Make PiSSA's start deterministic: singular vectors are unique up to sign, so make the right one's largest entry positive."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name, module in layer.lora_A.items():
                right, left = module.get_parameter("weight"), layer.lora_B[name].get_parameter("weight")
                signs = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
                right.mul_(signs)
                left.mul_(signs.T)


def taken_from_base(model: torch.nn.Module, adapter: AdapterParams) -> dict[str, torch.Tensor]:
    """Copy the factors that PiSSA (arXiv 2404.02948) took out of the base weights, by name; empty for any other adapter."""
    if adapter["options"].get("init_lora_weights") != "pissa":
        return {}
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def save_adapter(model: PeftModel, weights: dict[str, Any], taken: dict[str, torch.Tensor], directory: Path) -> None:
    """Write the model's full state dict ``weights`` as an adapter of the original base.

    PiSSA's initial factors become a second half of each matrix with the opposite sign, so that the
    adapter fits the unmodified base: W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]. (peft's own
    conversion reads them from the model, of which a ZeRO-3 rank holds only its shard.)
    """
    for name, start in taken.items():
        start = start.to(weights[name])
        weights[name] = (
            torch.cat([weights[name], start], 0) if ".lora_A." in name else torch.cat([weights[name], -start], 1)
        )
    model.save_pretrained(str(directory), state_dict=weights)
    # The model card names packages and paths, which differ between equal runs.
    (directory / "README.md").unlink(missing_ok=True)
    configuration = files.read_json(directory / "adapter_config.json")
    if taken:
        configuration["r"] *= 2
        configuration["lora_alpha"] *= 2**0.5 if configuration["use_rslora"] else 2
        configuration["init_lora_weights"] = True
    # peft keeps lists of names as sets, whose order differs between processes.
    ordered = {
        key: sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
        for key, value in configuration.items()
    }
    files.write_json(directory / "adapter_config.json", ordered)


def load_adapter(base: Path, precision: str, adapter: Path) -> PeftModel:
    """Load the base with a trained adapter, unmerged, as in training; weights of 16 bits are computed in fp32."""
    model = load_base(base, precision)
    if precision in HALF:
        model.float()
    return PeftModel.from_pretrained(model, adapter)


def merge(base: Path, precision: str, adapter: Path) -> PreTrainedModel:
    """Merge an adapter into its base in fp32 and return one plain model, fp32 or rounded once to the base's 16 bits.

    A quantized base is dequantized first: the adapter was trained on the dequantized weights;
    merging into the original ones moves logits by 0.3 instead of 1e-6.
    """
    model = load_base(base, precision)
    if precision in ("int8", "nf4"):
        model = model.dequantize()
        # peft refuses to merge (IA)³ while a model says so of itself.
        model.is_loaded_in_8bit = model.is_loaded_in_4bit = False
    model.float()
    merged: torch.nn.Module = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    return merged.to(dtype_of(precision))  # type: ignore[return-value]


def prefix_of(model: PeftModel) -> list[Layer]:
    """Return keys and values of a trained prefix for each layer, each fp32 of shape (heads, virtual tokens, head size)."""
    with torch.no_grad():
        cache = start_of(model, 1)
    return [(one.keys[0].float().numpy().copy(), one.values[0].float().numpy().copy()) for one in cache.layers]
