"""Calibration: training rows as inputs of an exported decoder, and the ranges that they cause."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.precisions import calibrates
from snaketune.data.tokens import read_rows

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


def calibration_rows(directory: Path, count: int) -> list[np.ndarray]:
    """Return the token ids of the first ``count`` rows of the training split, without empty rows; a UserError if none is left."""
    path = directory / "train.safetensors"
    rows = [ids for ids in read_rows(path).ids[:count] if len(ids)]
    if not rows:
        raise UserError(f"{path}: no rows to calibrate on; expected at least one with a token")
    return rows


def proven_rows(recipe: dict[str, Any], directory: Path | None) -> tuple[list[np.ndarray], list[Path]]:
    """Return the training rows that a method needs, and the manifest that proves them; neither if it needs none.

    Raises:
        UserError: no ``directory`` is given, or its files have changed.
    """
    if not calibrates(recipe):
        return [], []
    if not directory:
        raise UserError(
            f"{recipe['method']} needs training rows: give --calibration-directory results/tokens/MODEL/SCENARIO/training"
        )
    proof = directory / "manifest.json"
    manifest.prove(proof)
    return calibration_rows(directory, recipe["options"]["calibration_rows"]), [proof]


class Feeds(CalibrationDataReader):
    """Feeds each row as one prefill with an empty cache, which is how evaluation starts."""

    def __init__(self, graph: onnx.GraphProto, rows: list[np.ndarray]):
        """Feed ``rows``, token ids of any integer type, to the inputs of ``graph``."""
        self.shapes = {
            node.name: [dimension.dim_value for dimension in node.type.tensor_type.shape.dim] for node in graph.input
        }
        self.rows = iter(rows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        if (row := next(self.rows, None)) is None:
            return None
        ids = row[None].astype(np.int64)
        positions = np.arange(ids.shape[1], dtype=np.int64)[None]
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": positions}
        return {
            name: feed[name] if name in feed else np.zeros((1, shape[1], 0, shape[3]), np.float32)
            for name, shape in self.shapes.items()
        }


def observed_ranges(
    source: Path, op_types: list[str], rows: list[np.ndarray], method: str = "minmax", symmetric: bool = False
) -> TensorsData:
    """Return the range of each input and output of these operators over ``rows``, by tensor name.

    Holds the activations of one row at a time. Writes files next to ``source``.
    """
    calibrator = create_calibrator(
        source,
        op_types,
        str(source.with_name("observed.onnx")),
        METHODS[method],
        use_external_data_format=True,
        extra_options={"symmetric": symmetric},
    )
    graph = onnx.load(source, load_external_data=False).graph
    for row in rows:
        calibrator.collect_data(Feeds(graph, [row]))
    return calibrator.compute_data()
