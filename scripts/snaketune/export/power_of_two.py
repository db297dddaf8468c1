"""What a power-of-two int8 export claims, and the arithmetic that it stands for.

Claimed, and checked: the format (QDQ at opset 17, symmetric int8, zero points 0, every scale a
power of two); the accuracy, which is measured like any export's; and that each linear layer is
integer arithmetic alone: int8 by int8 into int32, a shift that rounds half to even, saturation.
`linear` is that arithmetic, and ONNX Runtime on a CPU gives the same bits while accumulators stay
within EXACT (beyond, a float32 can't hold them): run as the pairs stand, with or without graph
optimization, and fused into QLinearMatMul by the session option `session.qdqisint8allowed: 1`.

Not claimed: that a vendor's tool compiles or places the graph, nor any speed. Norms, rotary
embeddings, softmax and the products of attention are fp32 in it.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from snaketune.core.errors import UserError

if TYPE_CHECKING:
    import onnx

OPSET = 17
EXACT = 2**24


def power_of_two_at_least(value: float) -> float:
    """The smallest power of two that isn't below ``value``; 1 for a tensor that is always 0."""
    if value == 0:
        return 1.0
    fraction, exponent = math.frexp(value)
    return math.ldexp(1.0, exponent - (fraction == 0.5))


def exponent_of(scale: float) -> int:
    """k where the scale is 2**k.

    Raises:
        ValueError: it is no power of two.
    """
    fraction, exponent = math.frexp(scale)
    if fraction != 0.5:
        raise ValueError(f"{scale!r} is no power of two")
    return exponent - 1


def linear(activation: np.ndarray, weight: np.ndarray, exponents: tuple[int, int, int]) -> np.ndarray:
    """A linear layer on integers alone.

    Args:
        activation: (..., inputs), int8.
        weight: (inputs, outputs), int8.
        exponents: k of the scale 2**k of activation, weight and output.

    Returns:
        (..., outputs), int8: what QuantizeLinear gives of the product, rounded half to even.
    """
    accumulator = accumulate(activation, weight).astype(np.int64)
    shift = exponents[2] - exponents[0] - exponents[1]
    if shift <= 0:
        found = accumulator << -shift
    else:
        floor = accumulator >> shift
        rest, half = accumulator - (floor << shift), 1 << (shift - 1)
        found = floor + ((rest > half) | ((rest == half) & (floor & 1 == 1)))
    return np.clip(found, -128, 127).astype(np.int8)


def accumulate(activation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The int32 sums of products before the shift: (..., outputs)."""
    return activation.astype(np.int32) @ weight.astype(np.int32)


def check_power_of_two(model: "onnx.ModelProto") -> None:
    """Prove that every quantized tensor is symmetric int8 by a power of two, at opset 17.

    Raises:
        UserError: one isn't, or nothing is quantized; names the tensor.
    """
    # The emulation needs numpy alone.
    from onnx import TensorProto, numpy_helper

    from snaketune.export.graphs import initializers

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
        if held[zero[0]].data_type != TensorProto.INT8 or zeros.any():
            raise UserError(f"power_of_two: zero point of {tensor} is {zeros.dtype} {zeros.tolist()}, expected int8 0")
        # frexp is exact; inf, nan, 0 and what is negative have other fractions.
        if not np.all(np.frexp(scales)[0] == 0.5):
            raise UserError(f"power_of_two: scale of {tensor} is {scales.tolist()}, expected a power of two")
