"""4- or 8-bit weights in blocks, embedding table included: ONNX Runtime's MatMulNBits and GatherBlockQuantized.

NF4's are in MatMulBnb4, with the very bytes and scales that bitsandbytes has without double quantization.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer

from snaketune.core.errors import UserError
from snaketune.export import gptq
from snaketune.export.graphs import initializers, linear_nodes, remove_unused, replace, tables
from snaketune.export.mixed_bits import kinds_of


def quantize(source: Path, options: dict[str, Any], rows: list[np.ndarray], bits: int = 4) -> onnx.ModelProto:
    """Return the model with every linear layer and the embedding table in so many bits; only gptq reads ``rows``.

    A head that is tied to the table shares its copy.

    Raises:
        UserError: k-quant can't pack a layer of this width in blocks of this size.
    """
    model = onnx.load(source)
    tied = _tied_head(model.graph)
    algorithm = options.get("algorithm", "rtn")
    if algorithm == "gptq":
        _quantize_gptq(model.graph, source, options, rows)
    else:
        if algorithm == "nf4":
            # What is left is the head, which QLoRA doesn't round either.
            model, bits = _with_nf4(model, options["block_size"]), 8
        if algorithm == "k-quant":
            _check_blocks(model.graph, options["block_size"])
        searching = {
            "hqq": nbits.HQQWeightOnlyQuantConfig(block_size=options["block_size"]),
            "k-quant": nbits.KQuantWeightOnlyQuantConfig(),
        }
        quantizer = nbits.MatMulNBitsQuantizer(
            model,
            block_size=options["block_size"],
            is_symmetric=options["symmetric"],
            accuracy_level=options["accuracy_level"],
            bits=bits,
            algo_config=searching.get(algorithm),
        )
        quantizer.process()
        model = quantizer.model.model
    _quantize_table(model.graph, options, tied if algorithm != "hqq" else None, bits)
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    remove_unused(model.graph)
    return model


def _with_nf4(model: onnx.ModelProto, block: int) -> onnx.ModelProto:
    """Return the model with every linear layer but the head in NF4 (arXiv 2305.14314, appendix E)."""
    kinds = kinds_of(model.graph)
    head = [node.name for node in model.graph.node if kinds.get(node.output[0]) == "table_and_head"]
    quantizer = MatMulBnb4Quantizer(model, MatMulBnb4Quantizer.NF4, block, nodes_to_exclude=head)
    quantizer.process()
    return quantizer.model.model


def _check_blocks(graph: onnx.GraphProto, block: int) -> None:
    held = initializers(graph)
    for node in linear_nodes(graph):
        width = held[node.input[1]].dims[0]
        if (blocks := math.ceil(width / block)) % 2:
            raise UserError(
                f"k-quant packs the zero points of two blocks into a byte, but {node.name} has {blocks} blocks of {block} in its {width} inputs: choose a block_size that gives an even number"
            )


def _quantize_gptq(graph: onnx.GraphProto, source: Path, options: dict[str, Any], rows: list[np.ndarray]) -> None:
    held, block = initializers(graph), options["block_size"]
    nodes = linear_nodes(graph)
    widths = {node.input[0]: held[node.input[1]].dims[0] for node in nodes}
    for name, moments in gptq.second_moments(source, widths, rows):
        for node in (node for node in nodes if node.input[0] == name):
            weight = numpy_helper.to_array(held[node.input[1]])
            codes, scales, zeros = gptq.quantize(weight, moments, block, options["symmetric"])
            parts = {"Q4": _pack(codes, block), "scales": scales.T.copy()}
            if not options["symmetric"]:
                parts["zero_points"] = _pack(zeros, len(zeros) + len(zeros) % 2)[:, 0]
            names = [f"{node.input[1]}_{kind}" for kind in parts]
            graph.initializer.extend(map(numpy_helper.from_array, parts.values(), names))
            made = helper.make_node(
                "MatMulNBits",
                [name, *names],
                list(node.output),
                f"{node.name}_Q4",
                domain="com.microsoft",
                K=weight.shape[0],
                N=weight.shape[1],
                bits=4,
                block_size=block,
                accuracy_level=options["accuracy_level"],
            )
            replace(graph, node, [made])


def _pack(codes: np.ndarray, block: int) -> np.ndarray:
    """Pack two codes (inputs, outputs) per byte, lower half first: (outputs, blocks, bytes of an even block)."""
    padded = np.pad(codes.T, ((0, 0), (0, -len(codes) % block))).reshape(codes.shape[1], -1, block)
    return np.ascontiguousarray(padded[..., ::2] | padded[..., 1::2] << 4)


def _tied_head(graph: onnx.GraphProto) -> str | None:
    """Return the output of the linear layer whose weight is the transposed embedding table, if there is one."""
    held = initializers(graph)
    for table in tables(graph):
        transposed = numpy_helper.to_array(held[table.input[0]]).T
        for node in linear_nodes(graph):
            other = held[node.input[1]]
            if tuple(other.dims) == transposed.shape and np.array_equal(numpy_helper.to_array(other), transposed):
                return str(node.output[0])
    return None


def _quantize_table(graph: onnx.GraphProto, options: dict[str, Any], tied: str | None, bits: int) -> None:
    """Read the table's rows from blocks: those of the tied head, or else rounded to nearest.

    hqq has fractional zero points, which GatherBlockQuantized doesn't accept, so its head isn't shared.
    """
    held, block = initializers(graph), options["block_size"]
    for node in tables(graph):
        table = numpy_helper.to_array(held[node.input[0]])
        if table.shape[1] % block:
            continue
        if tied:
            head = next(other for other in graph.node if tied in other.output)
            parts = list(head.input[1:])
        else:
            rounding = nbits.DefaultWeightOnlyQuantConfig(
                block_size=block, is_symmetric=options["symmetric"], bits=bits
            )
            # The kernel ignores strides.
            packed = nbits.DefaultWeightOnlyQuantizer(rounding).qbits_block_quant(np.ascontiguousarray(table.T))
            kinds = (f"Q{bits}", "scales", "zero_points")[: 2 if options["symmetric"] else 3]
            parts = [f"{node.input[0]}_{kind}" for kind in kinds]
            graph.initializer.extend(map(numpy_helper.from_array, packed[: len(parts)], parts))
        shape = f"{node.name}_shape"
        graph.initializer.append(numpy_helper.from_array(np.array([len(table), table.shape[1] * bits // 8]), shape))
        blocks = helper.make_node("Reshape", [parts[0], shape], [f"{node.name}_blocks"], f"{node.name}_reshape")
        gather = helper.make_node(
            "GatherBlockQuantized",
            [blocks.output[0], node.input[1], *parts[1:]],
            list(node.output),
            f"{node.name}_Q{bits}",
            domain="com.microsoft",
            gather_axis=0,
            quantize_axis=1,
            block_size=block,
            bits=bits,
        )
        replace(graph, node, [blocks, gather])
