"""Convert a trained adapter to the input tensors of a switchable base."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from snaketune.core import files
from snaketune.core.errors import UserError

SAVED_BY_PEFT = "base_model.model."
# Settings of peft that would change the computation or its layers, with the value that doesn't.
PLAIN: dict[str, Any] = {
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
    "layer_replication": None,
    "use_qalora": False,
    "alora_invocation_tokens": None,
    "layers_to_transform": None,
    "exclude_modules": None,
}


class Trained:
    """An adapter as peft saved it, with the weights it was trained on."""

    def __init__(self, base: Path, adapter: Path):
        """Read what peft saved; a UserError if it asks for something that the graph doesn't compute."""
        self.base, self.adapter = base, adapter
        self.config = files.read_json(adapter / "adapter_config.json")
        self.tensors = load_file(adapter / "adapter_model.safetensors")
        odd = [key for key, plain in PLAIN.items() if self.config.get(key, plain) != plain]
        kind = self.config["peft_type"]
        if odd or kind not in ("LORA", "IA3", "VERA"):
            raise UserError(
                f"{adapter}/adapter_config.json: {' with '.join([kind, *odd])} can't be switched, only plain LORA, IA3 and VERA can: export its merged model"
            )

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the tensors to feed, fp32, by the name of the input, ``{module}.{part}``.

        A tensor that is missing, unused, or of another shape than the base's layer is a UserError.
        """
        convert = {"LORA": self._lora, "IA3": self._ia3, "VERA": self._vera}[self.config["peft_type"]]
        with safe_open(self.base / "model.safetensors", "pt") as self.weights:
            self.layers = set(self.weights.keys())
            found = dict(convert())
        if self.tensors:
            raise self._misfit(f"{min(self.tensors)} can't be switched")
        targets = tuple(f".{target}.weight" for target in self.config["target_modules"])
        asked = {layer.removesuffix(".weight") for layer in self.layers if f".{layer}".endswith(targets)}
        if missing := asked - {name.rpartition(".")[0] for name in found}:
            raise self._misfit(f"nothing is there for {min(missing)}")
        return {name: tensor.float().contiguous() for name, tensor in sorted(found.items())}

    def _misfit(self, what: str) -> UserError:
        return UserError(
            f"{self.adapter}/adapter_model.safetensors: {what}; {self.base} and adapter_config.json ask for other tensors: train it again, or export its merged model"
        )

    def _take(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name not in self.tensors:
            raise self._misfit(f"{name} is missing")
        if tuple(self.tensors[name].shape) != shape:
            raise self._misfit(f"{name} is {list(self.tensors[name].shape)}, expected {list(shape)}")
        return self.tensors.pop(name).float()

    def _modules(self, end: str) -> list[tuple[str, str, int, int]]:
        """(name in the file, module, outputs, inputs) of each layer that has a tensor with this end."""
        found = []
        for name in sorted(self.tensors):
            if name.endswith(end):
                saved = name.removesuffix(end)
                module = saved.removeprefix(SAVED_BY_PEFT)
                if f"{module}.weight" not in self.layers:
                    raise self._misfit(f"{name} is of no layer of the base")
                found.append((saved, module, *self.weights.get_slice(f"{module}.weight").get_shape()))
        return found

    def _lora(self) -> Iterator[tuple[str, torch.Tensor]]:
        rank: int = self.config["r"]
        scale = self.config["lora_alpha"] / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        for saved, module, outputs, inputs in self._modules(".lora_A.weight"):
            right = self._take(f"{saved}.lora_A.weight", (rank, inputs))
            left = scale * self._take(f"{saved}.lora_B.weight", (outputs, rank))
            yield f"{module}.lora_A", right.T
            yield f"{module}.lora_B", left.T
            if self.config.get("use_dora"):
                # W' = m * (W + BA) / ||W + BA||, the norm of each output's row (arXiv 2402.09353, eq. 5).
                magnitude = self._take(f"{saved}.lora_magnitude_vector", (outputs,))
                norm = torch.linalg.norm(self.weights.get_tensor(f"{module}.weight").float() + left @ right, dim=1)
                yield f"{module}.output_scale", magnitude / norm

    def _vera(self) -> Iterator[tuple[str, torch.Tensor]]:
        """One random pair for all layers, cut to each layer's size and scaled (arXiv 2310.11454, eq. 2)."""
        rank: int = self.config["r"]
        if not self.config["save_projection"]:
            raise self._misfit("of its projections there is only a seed (save_projection: false)")
        layers = self._modules(".vera_lambda_d")
        right = self._take("base_model.vera_A", (rank, max((layer[3] for layer in layers), default=0)))
        left = self._take("base_model.vera_B", (max((layer[2] for layer in layers), default=0), rank))
        for saved, module, outputs, inputs in layers:
            d = self._take(f"{saved}.vera_lambda_d", (rank,))
            b = self._take(f"{saved}.vera_lambda_b", (outputs,))
            yield f"{module}.lora_A", (d[:, None] * right[:, :inputs]).T
            yield f"{module}.lora_B", (b[:, None] * left[:outputs]).T

    def _ia3(self) -> Iterator[tuple[str, torch.Tensor]]:
        forward = tuple(self.config["feedforward_modules"] or ())
        for saved, module, outputs, inputs in self._modules(".ia3_l"):
            if module.endswith(forward):
                yield f"{module}.input_scale", self._take(f"{saved}.ia3_l", (1, inputs))[0]
            elif f"{module}.bias" in self.layers:
                # peft scales the bias too; in the graph it is added to what was scaled.
                raise self._misfit(f"{saved}.ia3_l scales a bias, which can't be switched")
            else:
                yield f"{module}.output_scale", self._take(f"{saved}.ia3_l", (outputs, 1))[:, 0]
