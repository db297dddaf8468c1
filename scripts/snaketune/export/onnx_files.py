"""Save every exported model in one layout: model.onnx, and all weights in model.onnx_data."""

from pathlib import Path

import onnx

from snaketune.core.files import written_together


def save(graph: onnx.ModelProto, out: Path) -> None:
    """Write ``out/model.onnx`` and ``out/model.onnx_data``; both appear only once complete."""
    with written_together(out) as aside:
        onnx.save_model(
            graph,
            str(aside / "model.onnx"),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location="model.onnx_data",
            size_threshold=1024,
        )
