"""Prepare the graph of onnxruntime-genai's builder for quantizers."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from snaketune.core import files
from snaketune.export import onnx_files
from snaketune.export.graphs import initializers


def make_known(package: Path) -> None:
    """Give the cache its width, and a head that multiplies with the transposed table a weight of its own."""
    model = onnx.load(package / "model.onnx")
    width = files.read_json(package / "genai_config.json")["model"]["decoder"]["head_size"]
    for cache in (one for one in model.graph.input if one.name.startswith("past_key_values")):
        cache.type.tensor_type.shape.dim[3].dim_value = width
    held = initializers(model.graph)
    for node in [one for one in model.graph.node if one.op_type == "Transpose" and one.input[0] in held]:
        weight = np.ascontiguousarray(numpy_helper.to_array(held[node.input[0]]).T)
        model.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        model.graph.node.remove(node)
    onnx_files.save(model, package)
