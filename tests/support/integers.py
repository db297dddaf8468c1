"""The arithmetic of a linear layer that a power-of-two int8 export stands for, on integers alone.

ONNX Runtime on a CPU gives the same bits while accumulators stay within EXACT (beyond, a float32
can't hold them): with or without graph optimization, and fused into QLinearMatMul by the session
option `session.qdqisint8allowed: 1`.
"""

import math

import numpy as np

EXACT = 2**24


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
