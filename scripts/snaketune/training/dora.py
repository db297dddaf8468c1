"""DoRA (arXiv 2402.09353) at LoRA's cost: y = m / ‖W + cBA‖ ⊙ (Wx + cBAx) + bias, with the norm a constant of the gradient.

peft makes the matrix W + cBA at each step, and keeps two tensors of a layer's outputs for the backward pass. Here the norm comes from
products with A's few rows. For m's gradient y is kept, as what follows often does too; what attention reads is computed again.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import transpose
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from snaketune.training.params import ATTENDED


def lighten(model: torch.nn.Module) -> None:
    """Let the DoRA layers of a model that is to be trained compute as here; its adapter is saved and merged as before."""
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            for name, variant in layer.lora_variant.items():
                if type(variant) is DoraLinearVariant:
                    layer.lora_variant[name] = LightDora(path.endswith(ATTENDED))


class LightDora(DoraLinearVariant):
    """What peft calls for a DoRA layer, without dropout; ``again`` keeps its input rather than its output."""

    def __init__(self, again: bool):
        self.again, self.squares = again, torch.empty(0)

    def forward(  # type: ignore[override]
        self, module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **others: Any
    ) -> torch.Tensor:
        """Return the layer's output, given its input and what its base returns of it, which is overwritten."""
        if module.training and not isinstance(module.lora_dropout[active_adapter], torch.nn.Identity):
            return DoraLinearVariant.forward(module, active_adapter, x, result, **others)
        base, right, left = module.get_base_layer(), module.lora_A[active_adapter], module.lora_B[active_adapter].weight
        weight = transpose(dequantize_module_weight(base), module.fan_in_fan_out)
        scaling, magnitude = module.scaling[active_adapter], module.lora_magnitude_vector[active_adapter].weight
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            norm = self.norm(weight, right.weight, left, scaling)
        fixed = left, magnitude, norm, base.bias, scaling, self.again
        # A weight that isn't the base's own is made anew from 4 bits; autocast would make the input a 16-bit copy.
        whole = weight is base.weight and x.dtype == result.dtype == weight.dtype == left.dtype
        with torch.set_grad_enabled(torch.is_grad_enabled() and not whole):
            down = right(x)
        if whole:
            found: torch.Tensor = ScaledOutput.apply(result.detach(), down, *fixed, x, right.weight, weight)
        else:
            found = ScaledOutput.apply(result, down, *fixed, None, None, None)
        return found

    def norm(self, weight: torch.Tensor, right: torch.Tensor, left: torch.Tensor, scaling: float) -> torch.Tensor:
        """Return ‖W + cBA‖ of each output: ‖w + cbA‖² = ‖w‖² + 2c b·Aw + c² b·AAᵀb for rows w of W and b of B."""
        if not len(self.squares):
            self.squares = torch.linalg.vector_norm(weight, dim=1, dtype=left.dtype).square()
        products = weight.to(left.dtype) @ right.T
        changes = left * torch.addmm(products, left, right @ right.T, beta=2 * scaling, alpha=scaling**2)
        return (self.squares + changes.sum(1)).clamp(min=0).sqrt()


class ScaledOutput(torch.autograd.Function):
    """m / n ⊙ (z - bias + c Bd) + bias, of the base's output z, which it overwrites, and d = Ax.

    With x, A and W given it has their gradients, in one sum, instead of those of z and d; and with ``again`` it then computes z anew.
    """

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, down: torch.Tensor, *others: Any) -> torch.Tensor:
        up, magnitude, norm, bias, ctx.scaling, again, x, right, weight = others
        ctx.mark_dirty(output)
        scale, flat = magnitude / norm, output.view(-1, output.shape[-1])
        # The output itself, unless it has 16 bits: it is then rounded once.
        wide = flat.to(up.dtype)
        wide.addmm_(down.flatten(0, -2).to(up.dtype), up.T, alpha=ctx.scaling).mul_(scale)
        if bias is not None:
            wide.addcmul_(bias, 1 - scale)
        if wide is not flat:
            flat.copy_(wide)
        kept = None if again and x is not None else output
        ctx.save_for_backward(kept, down, up, magnitude, scale, bias, x, right, weight)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept, down, up, magnitude, scale, bias, x, right, weight = ctx.saved_tensors
        low, flat = down.flatten(0, -2), gradient.flatten(0, -2)
        # The sum of g (y - bias) for each output, or, of z computed anew, of g z.
        if kept is None:
            products = linear(x.flatten(0, -2), weight).mul_(flat)
            total = products.sum(0).mul_(scale)
        else:
            products = flat.to(up.dtype) * kept.flatten(0, -2)
            total = products.sum(0)
            total -= 0 if bias is None else bias * flat.sum(0, dtype=up.dtype)
        of_output = torch.mul(flat, scale, out=products if products.dtype == flat.dtype else torch.empty_like(flat))
        of_low = (of_output @ up.to(flat.dtype)).mul_(ctx.scaling)
        of_up = (of_output.T @ low.to(flat.dtype)).mul_(ctx.scaling).to(up.dtype)
        total += 0 if kept is not None else (up * of_up).sum(1)
        of_fixed = of_up, total / magnitude, None, None, None, None
        if weight is None:
            return of_output.view_as(gradient), of_low.to(down.dtype).view_as(down), *of_fixed, None, None, None
        of_x = (of_output @ weight).addmm_(of_low, right).view_as(x) if ctx.needs_input_grad[8] else None
        return None, None, *of_fixed, of_x, of_low.T @ x.flatten(0, -2), None
