"""Runs in the export environment, for tests/integration/test_planted_faults.py: only there is `onnx`.

`scripts` must be on PYTHONPATH. Reads steps of standard input, one JSON list, and prints exit code
and standard error of each, after all that the exporters print.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from scripts_within import run

from snaketune.core import manifest
from snaketune.core.layout import ONNX_FILES
from snaketune.export import onnx_files


def change(model: onnx.ModelProto, name: str, made: Callable[[np.ndarray], Any]) -> None:
    """Replace what an initializer holds."""
    [tensor] = [one for one in model.graph.initializer if one.name == name]
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(made(value.copy()), value.dtype), name))


def first(model: onnx.ModelProto, kind: str, number: int, layer: str = "") -> str:
    """The name of the first initializer that is this input of a node of a kind, in such a layer."""
    held = {tensor.name for tensor in model.graph.initializer}
    names = (node.input[number] for node in model.graph.node if node.op_type == kind and layer in node.name)
    return next(name for name in names if name in held)


def weight_and_scale(model: onnx.ModelProto) -> tuple[str, str]:
    """Of the first layer that computes in 8 bits."""
    weight = first(model, "MatMulInteger", 1)
    return weight, weight.removesuffix("_quantized") + "_scale"


def larger(value: np.ndarray, by: float) -> np.ndarray:
    """With the first number multiplied."""
    value.reshape(-1)[0] *= by
    return value


FAULTS: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "int8 scale overflowed": lambda model: change(model, weight_and_scale(model)[1], lambda scale: scale * 1e6),
    "int8 scale infinite": lambda model: change(model, weight_and_scale(model)[1], lambda scale: scale * np.inf),
    "int8 weights saturated": lambda model: change(
        model, weight_and_scale(model)[0], lambda weight: np.where(weight < 0, -128, 127)
    ),
    "int4 scale of a block overflowed": lambda model: change(
        model, first(model, "MatMulNBits", 2, "down_proj"), lambda scale: larger(scale, 1e6)
    ),
    "int8 scale of a block overflowed": lambda model: change(
        model, first(model, "MatMulNBits", 2, "down_proj"), lambda scale: larger(scale, 1e6)
    ),
    "zero points swapped": lambda model: [
        change(model, node.input[3], lambda zeros: zeros >> 4 | zeros << 4)
        for node in model.graph.node
        if node.op_type == "MatMulNBits"
    ],
    # What a cast makes of numbers beyond 65504.
    "fp16 weights overflowed": lambda model: change(
        model, first(model, "MatMul", 1), lambda weight: np.where(weight < 0, -np.inf, np.inf)
    ),
}


def plant(fault: str, source: Path, target: Path) -> None:
    """A copy of an export with a fault, of which its manifest knows nothing."""
    shutil.copytree(source, target)
    model = onnx.load(target / "model.onnx")
    FAULTS[fault](model)
    onnx_files.save(model, target)
    manifest.record(target, {}, [], [target / name for name in ONNX_FILES])


def main() -> None:
    told = []
    for kind, *argv in json.load(sys.stdin):
        if kind == "plant":
            plant(argv[0], Path(argv[1]), Path(argv[2]))
            told.append([0, ""])
        else:
            told.append(run(kind, *argv))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
