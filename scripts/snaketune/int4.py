"""4-bit weights in blocks, embedding table included: ONNX Runtime's MatMulNBits and GatherBlockQuantized."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

from snaketune.calibration import Feeds
from snaketune.errors import UserError
from snaketune.graphs import initializers, linear_nodes, remove_unused


def quantize(source: Path, options: dict[str, Any], rows: list[np.ndarray]) -> onnx.ModelProto:
    """The model with every linear layer and the embedding table in 4 bits; ``rows`` are for gptq.

    A head that is tied to the table keeps one copy for both.

    Raises:
        UserError: the algorithm can't pack a layer of this width in blocks of this size.
    """
    model = onnx.load(source)
    _check_blocks(model.graph, options)
    tied = _tied_head(model.graph)
    large = source.with_name("model.onnx_data").stat().st_size > onnx.checker.MAXIMUM_PROTOBUF
    quantizer = nbits.MatMulNBitsQuantizer(
        # gptq runs the model: from memory where protobuf can hold it, else only from its file.
        str(source) if options["algorithm"] == "gptq" and large else model,
        block_size=options["block_size"],
        is_symmetric=options["symmetric"],
        accuracy_level=options["accuracy_level"],
        algo_config=_config(model.graph, options, rows),
    )
    quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    onnx.external_data_helper.load_external_data_for_model(made, str(source.parent))
    if all(opset.domain != "com.microsoft" for opset in made.opset_import):
        made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    _quantize_table(made.graph, options, tied)
    remove_unused(made.graph)
    return made


def _config(graph: onnx.GraphProto, options: dict[str, Any], rows: list[np.ndarray]) -> Any:
    block = options["block_size"]
    match options["algorithm"]:
        case "hqq":
            return nbits.HQQWeightOnlyQuantConfig(block_size=block)
        case "gptq":
            # The errors of a group are spread before the next group's scale is taken.
            return nbits.GPTQWeightOnlyQuantConfig(Feeds(graph, rows), block_size=block)
        case "k-quant":
            return nbits.KQuantWeightOnlyQuantConfig()
    return _rounding(options)


def _rounding(options: dict[str, Any]) -> nbits.DefaultWeightOnlyQuantConfig:
    return nbits.DefaultWeightOnlyQuantConfig(
        block_size=options["block_size"], is_symmetric=options["symmetric"], accuracy_level=options["accuracy_level"]
    )


def _check_blocks(graph: onnx.GraphProto, options: dict[str, Any]) -> None:
    if options["symmetric"] or options["algorithm"] not in ("gptq", "k-quant"):
        return
    held = initializers(graph)
    for node in linear_nodes(graph):
        width, block = held[node.input[1]].dims[0], options["block_size"]
        if -(-width // block) % 2:
            raise UserError(
                f"{options['algorithm']} packs the zero points of two blocks into a byte, but {node.name} has {-(-width // block)} blocks of {block} in its {width} inputs: choose a block_size that gives an even number"
            )


def _tables(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    held = initializers(graph)
    return [
        node
        for node in graph.node
        if node.op_type == "Gather" and node.input[1] == "input_ids" and len(held[node.input[0]].dims) == 2
    ]


def _tied_head(graph: onnx.GraphProto) -> str | None:
    """The output of the linear layer whose weight is the embedding table, transposed."""
    held = initializers(graph)
    for table in _tables(graph):
        weight = numpy_helper.to_array(held[table.input[0]])
        for node in linear_nodes(graph):
            other = held[node.input[1]]
            if list(other.dims) == [*weight.T.shape] and np.array_equal(numpy_helper.to_array(other), weight.T):
                return str(node.output[0])
    return None


def _quantize_table(graph: onnx.GraphProto, options: dict[str, Any], tied: str | None) -> None:
    """Read the table's rows out of 4-bit blocks: the tied head's own, or else rounded to nearest.

    hqq's zero points are fractions, which GatherBlockQuantized doesn't take.
    """
    held = initializers(graph)
    for node in _tables(graph):
        table, block = numpy_helper.to_array(held[node.input[0]]), options["block_size"]
        if table.shape[1] % block:
            continue
        head = next((other for other in graph.node if tied in other.output), None) if tied else None
        if head is not None and options["algorithm"] != "hqq":
            parts = list(head.input[1:])
        else:
            packed = nbits.DefaultWeightOnlyQuantizer(_rounding(options)).qbits_block_quant(table.T)
            parts = [f"{node.input[0]}_{kind}" for kind in ("Q4", "scales", "zero_points")]
            parts = parts[: 2 if options["symmetric"] else 3]
            graph.initializer.extend(map(numpy_helper.from_array, packed, parts))
        _gather_blocks(graph, node, parts, table.shape, block)


def _gather_blocks(graph: onnx.GraphProto, node: onnx.NodeProto, parts: list[str], shape: Any, block: int) -> None:
    rows, width = shape
    flat = f"{node.name}_shape"
    graph.initializer.append(numpy_helper.from_array(np.array([rows, width // 2]), flat))
    made = [
        helper.make_node("Reshape", [parts[0], flat], [f"{node.name}_blocks"], f"{node.name}_reshape"),
        helper.make_node(
            "GatherBlockQuantized",
            [f"{node.name}_blocks", node.input[1], *parts[1:]],
            list(node.output),
            f"{node.name}_Q4",
            domain="com.microsoft",
            gather_axis=0,
            quantize_axis=1,
            block_size=block,
            bits=4,
        ),
    ]
    nodes = [part for other in graph.node for part in (made if other == node else [other])]
    del graph.node[:]
    graph.node.extend(nodes)
