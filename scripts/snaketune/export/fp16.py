"""Convert to 16-bit floating point, except for the computations that need 32."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from snaketune.core.errors import UserError
from snaketune.export.calibration import observed_ranges
from snaketune.export.graphs import ancestors, initializers, tables

LARGEST = float(np.finfo(np.float16).max)
MASK = float(np.finfo(np.float32).min) / 2
TOKENS = 64


def convert(source: Path) -> onnx.ModelProto:
    """Return the model in fp16, with inputs, outputs and cache in fp32. Writes files next to ``source``.

    The angles of the rotary embedding (fp16 counts only to 2048) and the mean square of the norms
    (256 squared is beyond fp16) stay in fp32.

    Raises:
        UserError: a weight or, on a row of tokens from all over the vocabulary, an activation is
            larger than fp16 holds.
    """
    graph = onnx.load(source).graph
    _check_weights(graph)
    exact = [node.name for node in _exact(graph)]
    _check_activations(source, graph, set(exact))
    converted = convert_float_to_float16(
        str(source), keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=exact
    )
    _join_casts(converted.graph)
    made = OnnxModel(converted)
    made.topological_sort()
    return made.model


def _exact(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that stay fp32: up to the cosines and sines, and from square to root in the norms."""
    angles = [output for node in graph.node if node.op_type in ("Cos", "Sin") for output in node.output]
    kept = ancestors(graph, angles)
    for chain in (node for node in graph.node if node.op_type == "Pow"):
        while chain is not None and chain.op_type != "Mul":
            kept.append(chain)
            chain = next((node for node in graph.node if chain.output[0] in node.input), None)
    return kept


def _join_casts(graph: onnx.GraphProto) -> None:
    """Remove the casts to fp16 and back that the converter puts between two fp32 nodes, for each reader."""
    makers = {output: node for node in graph.node for output in node.output}
    joined = {}
    for node in graph.node:
        before = makers.get(node.input[0]) if node.name.endswith("_cast_to_fp32_node") else None
        if before is not None and before.name.endswith("_cast_to_fp16_node"):
            joined[node.output[0]] = before.input[0]
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = joined.get(name, name)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if read.intersection(node.output):
            kept.setdefault(next(filter(None, node.output)), node)
    nodes = list(kept.values())
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def _check_weights(graph: onnx.GraphProto) -> None:
    for tensor in (tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT):
        largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
        if not largest <= LARGEST:
            raise UserError(
                f"float16: {tensor.name} has a weight of {largest:g}, fp16 holds at most {LARGEST:g}: choose another precision for this model"
            )


def _check_activations(source: Path, graph: onnx.GraphProto, exact: set[str]) -> None:
    if not (found := tables(graph)):
        raise UserError(
            f"float16: {source} reads no table of embeddings by input_ids: its architecture isn't supported: choose another precision"
        )
    size = initializers(graph)[found[0].input[0]].dims[0]
    row = np.unique(np.linspace(0, size - 1, TOKENS).astype(np.int64))
    inside = {output for node in graph.node if node.name in exact for output in node.output}
    for name, data in observed_ranges(source, ["MatMul", "Mul", "Add"], [row]).items():
        low, high = (float(np.max(end)) for end in data.range_value)
        # The attention mask is the lowest fp32 value; the lowest fp16 value masks as well.
        largest = max(high, -low if low > MASK else 0)
        if name not in inside and not largest <= LARGEST:
            raise UserError(
                f"float16: {name} reaches {largest:g}, fp16 holds at most {LARGEST:g}: choose another precision for this model"
            )
