"""Measure what each part of quantizing to 8 bits loses of a finished run's fp32 export, and write the table of docs/export.md.

KL divergence from fp32 over all positions of validation rows. Runs in the environment of envs/export.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from quantize_onnx import METHODS
from snaketune.core import errors, files
from snaketune.data.tokens import read_rows
from snaketune.export.auto import Judge, rounded
from snaketune.export.graphs import initializers, linear_nodes
from snaketune.export.mixed_bits import KINDS, kinds_of, weight_bytes
from write_figures import write

DYNAMIC = {"op_types": ["MatMul", "Gather"], "per_channel": True, "outliers_in_blocks": True}
ONE_SCALE = DYNAMIC | {"outliers_in_blocks": False}
BLOCKS = {"block_size": 32, "symmetric": True, "accuracy_level": 4}


def exported(method: str, options: dict[str, Any]) -> Callable[[Path], onnx.ModelProto]:
    return lambda source: METHODS[method](source, options, [])


def without_down(source: Path) -> onnx.ModelProto:
    """Quantize to int8 with one scale for a tensor, but for down_proj."""
    graph = onnx.load(source, load_external_data=False).graph
    kinds = kinds_of(graph)
    names = [node.name for node in graph.node if kinds.get(node.output[0]) == "down"]
    made = source.with_name("quantized.onnx")
    options = {"per_channel": True, "reduce_range": True, "use_external_data_format": True}
    quantize_dynamic(source, made, DYNAMIC["op_types"], weight_type=QuantType.QInt8, nodes_to_exclude=names, **options)
    return onnx.load(made)


def weights(bits: int) -> Callable[[Path], onnx.ModelProto]:
    """Round the weights of linear layers to so many bits, with a scale for each output."""

    def make(source: Path) -> onnx.ModelProto:
        model = onnx.load(source)
        held, top = initializers(model.graph), 2 ** (bits - 1) - 1
        for name in {node.input[1] for node in linear_nodes(model.graph)}:
            weight = numpy_helper.to_array(held[name])
            scale = np.maximum(np.abs(weight).max(0, keepdims=True) / top, np.finfo(np.float32).tiny)
            held[name].CopyFrom(numpy_helper.from_array((np.round(weight / scale) * scale).astype(np.float32), name))
        return model

    return make


def activations(of: str, kinds: tuple[str, ...] = KINDS) -> Callable[[Path], onnx.ModelProto]:
    """Round the inputs of linear layers to 8 bits, with one scale for each ``tensor`` or ``token``."""

    def make(source: Path) -> onnx.ModelProto:
        model = onnx.load(source)
        graph, known = model.graph, kinds_of(model.graph)
        layers = {node.output[0] for node in linear_nodes(graph) if known[node.output[0]] in kinds}
        held = {"levels": np.float32(127), "least": np.float32(1e-12), "last": np.array([-1], np.int64)}
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in held.items())
        nodes, made = [], set[str]()
        for node in graph.node:
            if node.output[0] in layers:
                taken = node.input[0]
                if taken not in made:
                    made.add(taken)
                    nodes += (of_tensor if of == "tensor" else of_token)(taken)
                node.input[0] = f"{taken}/8"
            nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)
        return model

    return make


def of_tensor(x: str) -> list[onnx.NodeProto]:
    parts = [f"{x}/{part}" for part in ("codes", "scale", "zero")]
    return [
        helper.make_node("DynamicQuantizeLinear", [x], parts),
        helper.make_node("DequantizeLinear", parts, [f"{x}/8"]),
    ]


def of_token(x: str) -> list[onnx.NodeProto]:
    steps = [
        ("Abs", [x], "size"),
        ("ReduceMax", [f"{x}/size", "last"], "largest"),
        ("Div", [f"{x}/largest", "levels"], "fraction"),
        ("Max", [f"{x}/fraction", "least"], "scale"),
        ("Div", [x, f"{x}/scale"], "divided"),
        ("Round", [f"{x}/divided"], "codes"),
        ("Mul", [f"{x}/codes", f"{x}/scale"], "8"),
    ]
    return [helper.make_node(kind, inputs, [f"{x}/{made}"]) for kind, inputs, made in steps]


FORMS: dict[str, Callable[[Path], onnx.ModelProto]] = {
    "`int8` with `outliers_in_blocks: false`": exported("dynamic-int8", ONE_SCALE),
    "its activations only, one scale per tensor": activations("tensor"),
    "the same, in `down_proj` only": activations("tensor", ("down",)),
    "activations only, one scale per token": activations("token"),
    "weights only, 7 bits, one scale per output": weights(7),
    "weights only, 8 bits, one scale per output": weights(8),
    "`int8` with `outliers_in_blocks: false` but `down_proj` in fp32": without_down,
    "`int8`: `down_proj` in blocks": exported("dynamic-int8", DYNAMIC),
    "`int8-block`: all weights and activations, 8 bits in blocks of 32": exported("weight-only-int8", BLOCKS),
    "the same with `accuracy_level: 0`: weights only": exported("weight-only-int8", BLOCKS | {"accuracy_level": 0}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="onnx/fp32/model.onnx of a run")
    parser.add_argument("tokens", type=Path, help="results/tokens/MODEL/SCENARIO/training, for validation rows")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--page", type=Path, default=Path("docs/export.md"))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # ONNX Runtime's quantizers report every node
    path = arguments.tokens / "validation.safetensors"
    for needed in (arguments.model, path):
        if not needed.is_file():
            raise errors.UserError(f"{needed}: no such file: run the experiment first, with fp32 in `precisions`")
    rows = [(ids, np.arange(1, len(ids))) for ids in read_rows(path).ids[: arguments.rows] if len(ids) > 1]
    lines = ["| quantized | KL divergence, nats | bytes relative to fp32 |", "|---|---|---|"]
    work = Path("work/rounding").resolve()
    for name, make in FORMS.items():
        with files.scratch(work) as directory:
            for file in ("model.onnx", "model.onnx_data"):
                shutil.copyfile(arguments.model.with_name(file), directory / file)
            source = directory / "model.onnx"
            judge = Judge(source, rows)
            fp32 = weight_bytes(onnx.load(source, load_external_data=False))
            made = make(source)
            loss, _ = judge.loss(made)["kl_divergence"]
            size = f"{weight_bytes(made) / fp32:.2f}" if "only" not in name or "accuracy_level" in name else ""
            lines.append(f"| {name} | {rounded(loss):.2g} | {size} |")
            print(lines[-1], flush=True)
    count = sum(len(places) for _, places in rows)
    write(
        [arguments.page],
        {"rounded": "\n".join([*lines, "", f"{count} positions of {len(rows)} validation rows."])},
    )


if __name__ == "__main__":
    errors.run(main)
