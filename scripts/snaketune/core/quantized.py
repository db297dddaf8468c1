"""What a local model's files say of its weights, and whether they are already quantized."""

from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from snaketune.core.errors import UserError
from snaketune.core.files import read_json


def tensors(directory: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Yield the name, type and shape of each tensor of a model, from the headers of its safetensors.

    Raises:
        UserError: a file isn't whole.
    """
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                for key in weights.keys():  # noqa: SIM118
                    yield key, weights.get_slice(key).get_dtype(), weights.get_slice(key).get_shape()
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}); download it again") from None


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
    for key, kind, _ in tensors(directory):
        packed = kind.startswith(("F8", "F4", "U8", "I8")) or key.endswith((".qweight", ".weight_packed"))
        if packed and "weight" in key:
            return f"{key} has the type {kind}"
    return None


def refuse_quantized(directory: Path, where: str = "") -> None:
    """Raise a UserError if the weights of a transformers model are already quantized: none of the techniques trains such."""
    if found := quantization_of(directory):
        raise UserError(
            f"{where or directory / 'config.json'}: this model is already quantized ({found}), and only float weights can be trained, merged and exported: use the model from which it was quantized; qlora then quantizes that to 4 bits for training, and precisions quantize the result"
        )
