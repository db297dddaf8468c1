"""Calibration: training rows as inputs of an exported decoder, and the ranges that they cause."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from snaketune.core.errors import UserError
from snaketune.data.tokens import read_rows

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


def calibration_rows(directory: Path, count: int) -> list[np.ndarray]:
    """Return the token ids of the first ``count`` rows of the training split, without empty rows.

    Raises:
        UserError: no row is left.
    """
    path = directory / "train.safetensors"
    rows = [ids for ids in read_rows(path).ids[:count] if len(ids)]
    if not rows:
        raise UserError(f"{path}: no rows to calibrate on; expected at least one with a token")
    return rows


class Feeds(CalibrationDataReader):
    """Feeds each row as one prefill with an empty cache, which is how evaluation starts."""

    def __init__(self, graph: onnx.GraphProto, rows: list[np.ndarray]):
        """Feed ``rows``, token ids of any integer type, to the inputs of ``graph``."""
        self.shapes = {
            node.name: [dimension.dim_value for dimension in node.type.tensor_type.shape.dim] for node in graph.input
        }
        self.rows = rows
        self.set_range(0, len(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Continue with these rows; ONNX Runtime calls this to hold few activations at once."""
        self.left: Iterator[np.ndarray] = iter(self.rows[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray]:
        row = next(self.left, None)
        return {} if row is None else self._feed(row)

    def __next__(self) -> dict[str, np.ndarray]:
        return self._feed(next(self.left))

    def _feed(self, row: np.ndarray) -> dict[str, np.ndarray]:
        ids = row[None].astype(np.int64)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
        }
        feed = {name: value for name, value in given.items() if name in self.shapes}
        for name, shape in self.shapes.items():
            if name not in given:
                feed[name] = np.zeros((1, shape[1], 0, shape[3]), np.float32)
        return feed


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
    feeds = Feeds(onnx.load(source, load_external_data=False).graph, rows)
    for row in range(len(rows)):
        feeds.set_range(row, row + 1)
        calibrator.collect_data(feeds)
    return calibrator.compute_data()
