"""Trained prefixes on disk, readable without torch so that ONNX Runtime can use them."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from snaketune.core.files import written_whole

# Keys and values of one layer, each (heads, virtual tokens, head size), fp32.
Layer = tuple[np.ndarray, np.ndarray]


def write_prefix(path: Path, layers: list[Layer]) -> None:
    """Write the tensors ``key.0``, ``value.0``, ``key.1``, … of a safetensors file."""
    named = {f"{kind}.{i}": layer[n] for i, layer in enumerate(layers) for n, kind in enumerate(("key", "value"))}
    with written_whole(path) as aside:
        aside.write_bytes(save({name: np.ascontiguousarray(tensor) for name, tensor in named.items()}))


def read_prefix(path: Path) -> list[Layer]:
    """Read keys and values of each layer."""
    tensors = load_file(path)
    return [(tensors[f"key.{i}"], tensors[f"value.{i}"]) for i in range(len(tensors) // 2)]
