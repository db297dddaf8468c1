"""Static int8: 8-bit weights and activations as QDQ pairs, with scales calibrated on training rows.

Only matrix products with a constant weight and the embedding table are quantized. The products of
attention, whose operands vary most, and everything in between stay in fp32.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, version_converter
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from snaketune.core.errors import UserError
from snaketune.export.calibration import METHODS, observed_ranges
from snaketune.export.graphs import initializers, linear_nodes, tables
from snaketune.export.power_of_two import OPSET, power_of_two_at_least


def quantize(source: Path, options: dict[str, Any], rows: list[np.ndarray]) -> onnx.ModelProto:
    """Return the model in QDQ format; writes files next to ``source`` and may change it.

    Activations are asymmetric uint8 and the layers' outputs stay fp32: residual stream and logits
    have outliers that would use up an 8-bit scale. A weight with a scale for each output has 7
    bits: with 8, the kernels of x86 processors without VNNI saturate at 16 bits.
    With ``power_of_two`` both are symmetric int8, outputs included, and every scale is a power of
    two.

    Raises:
        UserError: a scale of a power-of-two model isn't one.
    """
    shifts = options["power_of_two"]
    if shifts:
        # Without its weights, which may be more than protobuf can hold.
        graph_only = onnx.load(source, load_external_data=False)
        onnx.save(version_converter.convert_version(graph_only, OPSET), source)
    ranges = observed_ranges(source, options["op_types"], rows, options["calibration"], symmetric=shifts)
    cache = source.with_name("ranges.json")
    save_tensors_data(ranges, cache)
    graph = onnx.load(source, load_external_data=False).graph
    linear = {node.name for node in linear_nodes(graph)}
    extra: dict[str, Any] = {"ActivationSymmetric": shifts, "WeightSymmetric": True}
    if shifts:
        extra["TensorQuantOverrides"] = _shifts(onnx.load(source).graph, ranges)
    else:
        extra["OpTypesToExcludeOutputQuantization"] = ["MatMul"]
    made = source.with_name("quantized.onnx")
    quantize_static(
        source,
        made,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=options["op_types"],
        per_channel=options["per_channel"],
        reduce_range=options["per_channel"],
        activation_type=QuantType.QInt8 if shifts else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[node.name for node in graph.node if node.op_type == "MatMul" and node.name not in linear],
        use_external_data_format=True,
        calibrate_method=METHODS[options["calibration"]],
        calibration_cache_path=cache,
        extra_options=extra,
    )
    quantized = onnx.load(made)
    if shifts:
        onnx.checker.check_model(made)
        check_power_of_two(quantized)
    return quantized


def wide_inputs_in_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the layers that read more than the hidden state, such as down_proj, in 8-bit blocks.

    Their inputs are products and have outliers: with one scale for a whole tensor, they were nearly all of SmolLM2's loss.
    """
    held = initializers(model.graph)
    hidden = min((held[table.input[0]].dims[1] for table in tables(model.graph)), default=math.inf)
    wide = {node.name for node in linear_nodes(model.graph) if held[node.input[1]].dims[0] > hidden}
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=8,
        block_size=32,
        is_symmetric=True,
        accuracy_level=4,
        nodes_to_exclude=[node.name for node in model.graph.node if node.name not in wide],
    )
    quantizer.process()
    return quantizer.model.model


def _shifts(graph: onnx.GraphProto, ranges: TensorsData) -> dict[str, list[dict[str, Any]]]:
    """Return a power-of-two scale for each tensor to quantize."""
    held = initializers(graph)
    scales = {
        name: power_of_two_at_least(float(np.abs(np.asarray(data.range_value, np.float64)).max()) / 127)
        for name, data in ranges.items()
        if name not in held
    }
    tables = [node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[0] in held]
    for name in [*tables, *(node.input[1] for node in linear_nodes(graph))]:
        scales[name] = _of_weight(numpy_helper.to_array(held[name]))
    symmetric = {"quant_type": QuantType.QInt8, "zero_point": np.array(0, np.int8)}
    return {name: [{**symmetric, "scale": np.array(scale, np.float32)}] for name, scale in scales.items()}


def _of_weight(weight: np.ndarray) -> float:
    """Return the power of two with the smaller squared error: the one that clips nothing, or half of it."""
    whole = power_of_two_at_least(float(np.abs(weight).max()) / 127)

    def error(scale: float) -> float:
        return float(np.square(np.clip(np.round(weight / scale), -128, 127) * scale - weight, dtype=np.float64).sum())

    return min((whole, whole / 2), key=error)


def check_power_of_two(model: onnx.ModelProto) -> None:
    """Raise a UserError if a tensor isn't symmetric int8 with a power-of-two scale, or the opset isn't 17."""
    versions = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    if versions != [OPSET]:
        raise UserError(f"power_of_two: opset is {versions}, expected {OPSET}")
    held = initializers(model.graph)
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if not pairs:
        raise UserError("power_of_two: no tensor is quantized; does the model have an operator of op_types?")
    for node in pairs:
        tensor, scale, *zero = node.input
        if scale not in held or not zero or zero[0] not in held:
            raise UserError(f"power_of_two: scale or zero point of {tensor} isn't a constant")
        scales, zeros = numpy_helper.to_array(held[scale]), numpy_helper.to_array(held[zero[0]])
        if held[zero[0]].data_type != onnx.TensorProto.INT8 or zeros.any():
            raise UserError(f"power_of_two: zero point of {tensor} is {zeros.dtype} {zeros.tolist()}, expected int8 0")
        # frexp is exact; inf, nan, 0 and what is negative have other fractions.
        if not np.all(np.frexp(scales)[0] == 0.5):
            raise UserError(f"power_of_two: scale of {tensor} is {scales.tolist()}, expected a power of two")
