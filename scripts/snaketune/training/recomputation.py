"""Recompute activations in the backward pass instead of keeping them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from snaketune.core.errors import UserError


def recompute(model: PreTrainedModel, kind: bool | str) -> None:
    """Make a plain model recompute each block (True), or only its feed-forward products (``feed-forward``).

    Raises:
        UserError: the model's feed-forward layers aren't down(act(gate) * up).
    """
    if kind is True:
        model.activation_checkpointing_enable()
    elif kind == "feed-forward":
        layers = [module for module in model.modules() if hasattr(module, "down_proj")]
        if not layers or not all(map(is_gated, layers)):
            raise UserError(
                f"gradient_checkpointing: feed-forward: the feed-forward layers of {type(model).__name__} aren't down(act(gate) * up): use true, which recomputes whole blocks, or false"
            )
        for layer in layers:
            layer.forward = partial(gated_forward, layer)


@torch.no_grad()
def is_gated(layer: Any) -> bool:
    """Return true if ``gated_forward`` computes what the layer itself does."""
    try:
        inputs = torch.ones(1, layer.down_proj.out_features, device=layer.down_proj.weight.device)
        inputs = inputs.to(layer.down_proj.weight.dtype) if layer.down_proj.weight.is_floating_point() else inputs
        return torch.equal(layer(inputs), gated_forward(layer, inputs))
    except (AttributeError, TypeError):
        return False


def gated_forward(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return down(act(gate) * up) and keep gate and up of ``layer`` alone: two of the four widest tensors of a block."""
    if hasattr(layer, "gate_up_proj"):
        gate, up = layer.gate_up_proj(hidden).chunk(2, dim=-1)
    else:
        gate, up = layer.gate_proj(hidden), layer.up_proj(hidden)
    act = layer.activation_fn if hasattr(layer, "activation_fn") else layer.act_fn

    def multiply(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = act(gate) * up
        return product

    product = checkpoint(multiply, gate, up, use_reentrant=False)
    with computed_again(product, lambda: multiply(gate, up)):
        output: torch.Tensor = layer.down_proj(product)
    return output


def computed_again(tensor: torch.Tensor, make: Callable[[], torch.Tensor]) -> saved_tensors_hooks:
    """Return a context in which autograd keeps no copy of ``tensor``, but calls ``make``."""
    # Not the tensor itself, which this function's closures would keep.
    place, size = tensor.data_ptr(), tensor.numel()

    def pack(saved: torch.Tensor) -> torch.Tensor | torch.Size:
        same = saved.data_ptr() == place and saved.numel() == size and saved.is_contiguous()
        return saved.shape if same else saved

    def unpack(kept: torch.Tensor | torch.Size) -> torch.Tensor:
        return kept if isinstance(kept, torch.Tensor) else make().view(kept)

    return saved_tensors_hooks(pack, unpack)
