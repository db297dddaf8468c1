"""One layout for every exported model: model.onnx and all weights in model.onnx_data."""

import os
import shutil
import tempfile
from pathlib import Path

import onnx


def save(graph: onnx.ModelProto, out: Path) -> None:
    """Write ``out/model.onnx`` and ``out/model.onnx_data``; both appear only when whole."""
    umask = os.umask(0)
    os.umask(umask)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        onnx.save_model(
            graph,
            str(Path(scratch, "model.onnx")),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location="model.onnx_data",
            size_threshold=1024,
        )
        for name in ("model.onnx_data", "model.onnx"):
            Path(scratch, name).chmod(0o666 & ~umask)
            shutil.move(Path(scratch, name), out / name)
