"""Power-of-two int8 exports: their scales, and what such an export claims.

Claimed, and checked: the format (QDQ at opset 17, symmetric int8, zero points 0, every scale a
power of two); the accuracy, which is measured like any export's; and, in a test, that each linear
layer is integer arithmetic alone: int8 by int8 into int32, a shift that rounds half to even,
saturation.

Not claimed: that a vendor's tool compiles or places the graph, nor any speed. Norms, rotary
embeddings, softmax and the products of attention are fp32 in it.
"""

import math

OPSET = 17


def power_of_two_at_least(value: float) -> float:
    """Return the smallest power of two that isn't below ``value``; 1 for a tensor that is always 0."""
    if value == 0:
        return 1.0
    fraction, exponent = math.frexp(value)
    return math.ldexp(1.0, exponent - (fraction == 0.5))
