"""Recognize a model whose weights are already quantized, from its files alone."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from snaketune.core.errors import UserError
from snaketune.core.files import read_json


def quantization_of(directory: Path) -> str | None:
    """Return how the weights of a transformers model are quantized, by config.json or else by their types, or None."""
    try:
        config = read_json(directory / "config.json")
    except (OSError, ValueError):
        # What reads the model names this fault.
        config = {}
    for content in (config, config.get("text_config") or {}):
        if named := content.get("quantization_config") or content.get("compression_config"):
            return str(named.get("quant_method") or named.get("quant_algo") or "quantization_config")
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                types = {key: weights.get_slice(key).get_dtype() for key in weights.keys() if "weight" in key}  # noqa: SIM118
        except (SafetensorError, OSError):
            continue
        for key, kind in types.items():
            if kind.startswith(("F8", "F4", "U8", "I8")) or key.endswith((".qweight", ".weight_packed")):
                return f"{key} has the type {kind}"
    return None


def refuse_quantized(directory: Path, where: str = "") -> None:
    """Raise a UserError if the weights of a transformers model are already quantized: none of the techniques trains such."""
    if found := quantization_of(directory):
        raise UserError(
            f"{where or directory / 'config.json'}: this model is already quantized ({found}), and only float weights can be trained, merged and exported: use the model from which it was quantized; qlora then quantizes that to 4 bits for training, and precisions quantize the result"
        )
