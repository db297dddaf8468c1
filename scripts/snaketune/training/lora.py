"""LoRA (arXiv 2106.09685) without passes over a layer's outputs that aren't needed: y = Wx + B(cAx).

peft multiplies each of B's outputs by c, and their gradients again, and adds them to a third tensor: 5 to 8 % of a step of the
benchmarks' models. Where c is a power of two, as in the presets, the result is the same bit for bit.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant


class LightLora(LoraVariant):
    """What peft calls for a LoRA layer of a model that is trained."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return the layer's output, given its input and what its base returns of it, which is overwritten."""
        down = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x))
        change = module.lora_B[active_adapter](down * module.scaling[active_adapter])
        # On a GPU, bitsandbytes' int8 product is a view made in a function of its own, which can't be overwritten.
        return result + change if result._is_view() else result.add_(change)


def lighten(model: torch.nn.Module) -> None:
    """Let plain LoRA layers compute as here; the adapter is saved as before, and merged once it is loaded again."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and isinstance(layer.get_base_layer(), torch.nn.Linear):
            for name, up in layer.lora_B.items():
                # Not AdaLoRA's, and not with a bias of B, which is multiplied too.
                if isinstance(up, torch.nn.Linear) and up.bias is None:
                    layer.lora_variant.setdefault(name, LightLora())
