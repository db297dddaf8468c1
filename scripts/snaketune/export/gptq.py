"""GPTQ (arXiv 2210.17323): round a weight input by input, and let the remaining inputs compensate for the error.

ONNX Runtime's own implementation spreads no error (it reads the wrong triangle of the Cholesky
factor), so its weights are the same as those of rounding to nearest.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from snaketune.export.calibration import Feeds

# Second moments of the inputs held in memory at once.
BYTES_AT_ONCE = 2**31
DAMPING = 0.01


def second_moments(source: Path, names: dict[str, int], rows: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield for each tensor of ``names`` (name: width) the sum over all tokens of x xᵀ: (width, width), float64.

    Writes a graph with these tensors as further outputs next to ``source``.
    """
    model = onnx.load(source, load_external_data=False)
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    observed = source.with_name("observed.onnx")
    onnx.save(model, observed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # What the job asks for; sums of several threads differ in the last digits, and so would weights.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(observed, options, providers=["CPUExecutionProvider"])
    for group in _groups(names):
        moments = {name: np.zeros((names[name], names[name])) for name in group}
        for feed in Feeds(model.graph, rows):
            for name, found in zip(group, session.run(group, feed), strict=True):
                seen = found.reshape(-1, names[name]).astype(np.float64)
                moments[name] += seen.T @ seen
        yield from moments.items()


def _groups(names: dict[str, int]) -> Iterator[list[str]]:
    group: list[str] = []
    for name, width in names.items():
        if group and 8 * (width**2 + sum(names[other] ** 2 for other in group)) > BYTES_AT_ONCE:
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def quantize(
    weight: np.ndarray, moments: np.ndarray, block: int, symmetric: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 4-bit codes that keep the layer's output, rather than its weights, close to the original.

    Args:
        weight: (inputs, outputs).
        moments: sum of x xᵀ over the layer's inputs x, (inputs, inputs).
        block: inputs that share a scale; each output has its own.
        symmetric: zero point 8 everywhere.

    Returns:
        Codes 0 to 15, (inputs, outputs); scales and zero points, (blocks, outputs): the weight is
        about (code - zero point) * scale.
    """
    left = weight.astype(np.float64)
    codes = np.zeros(left.shape, np.uint8)
    scales, zeros = [], []
    diagonal = np.arange(len(left))
    damped = moments.copy()
    damped[diagonal, diagonal] += DAMPING * np.mean(np.diag(moments)) + np.finfo(np.float32).tiny
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    for start in range(0, len(left), block):
        stop = min(start + block, len(left))
        scale, zero = _scale(left[start:stop], symmetric)
        errors = np.zeros((stop - start, left.shape[1]))
        for i in range(start, stop):
            codes[i] = np.clip(np.round(left[i] / scale) + zero, 0, 15)
            errors[i - start] = (left[i] - (codes[i] - zero) * scale) / factor[i, i]
            left[i + 1 : stop] -= np.outer(factor[i, i + 1 : stop], errors[i - start])
        left[stop:] -= factor[start:stop, stop:].T @ errors
        scales.append(scale)
        zeros.append(zero)
    return codes, np.array(scales, np.float32), np.array(zeros, np.uint8)


def _scale(part: np.ndarray, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and zero point of each column, rounded to the float32 that is stored, so that errors are exact."""
    low, high = np.minimum(part.min(0), 0), np.maximum(part.max(0), 0)
    if symmetric:
        # The end farther from zero gets code 0, which is one step farther out than code 15.
        scale = np.where(-low > high, low, high) / -8
        zero = np.full(part.shape[1], 8)
    else:
        scale = (high - low) / 15
        zero = np.round(np.divide(-low, scale, out=np.zeros_like(low), where=scale != 0))
    return np.where(scale == 0, 1, scale).astype(np.float32).astype(np.float64), zero
