"""Runs in the export environment, for tests/integration/test_quantize.py: only there is `onnx`.

`scripts` must be on PYTHONPATH. Reads one JSON object of standard input and prints one,
after all that the quantizers print.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import integers
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from scripts_within import run

from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.export import gptq, int8, onnx_files
from snaketune.export.calibration import Feeds, calibration_rows
from snaketune.export.graphs import initializers, linear_nodes

SESSIONS: dict[str, dict[str, str] | None] = {
    "as it comes": {},
    "no graph optimization": None,
    "fused to an int8 kernel": {"session.qdqisint8allowed": "1"},
}


def gemms(source: Path, target: Path) -> None:
    """A copy of a model whose linear layers are Gemm, as an exporter makes of other architectures."""
    shutil.copytree(source, target)
    model = onnx.load(target / "model.onnx")
    for node in linear_nodes(model.graph):
        node.op_type = "Gemm"
    onnx_files.save(model, target)
    manifest.record(target, {}, [], [target / "model.onnx", target / "model.onnx_data"])


def outliers(source: Path, target: Path) -> None:
    """A copy of a model that computes the same, with an outlier among the inputs of each down_proj."""
    shutil.copytree(source, target)
    model = onnx.load(target / "model.onnx")
    held = initializers(model.graph)
    for node in linear_nodes(model.graph):
        weight = numpy_helper.to_array(held[node.input[1]]).copy()
        if "gate_up_proj" in node.name:
            weight[:, -1] *= 1000
        if "down_proj" in node.name:
            weight[-1] /= 1000
        held[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
    onnx_files.save(model, target)
    manifest.record(target, {}, [], [target / "model.onnx", target / "model.onnx_data"])


def layers(path: Path, tokens: Path) -> dict[str, Any]:
    """Each quantized linear layer alone: ONNX Runtime's bits against those of integers.linear."""
    model = onnx.load(path)
    held = initializers(model.graph)
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, Any] = {"layers": 0, "values": 0, "accumulator": 0, "different": dict.fromkeys(SESSIONS, 0)}
    chains = []
    for node in model.graph.node:
        before = [makers.get(name) for name in node.input]
        if node.op_type == "MatMul" and all(part is not None and part.op_type == "DequantizeLinear" for part in before):
            after = next(other for other in model.graph.node if node.output[0] in other.input)
            chains.append((*before, node, after))
    names = [chain[0].input[0] for chain in chains]
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    feed = Feeds(model.graph, calibration_rows(tokens, 1)).get_next()
    given = onnxruntime.InferenceSession(observed.SerializeToString()).run(names, feed)
    for (left, right, node, after), activation in zip(chains, given, strict=True):
        scales = [float(numpy_helper.to_array(held[part.input[1]])) for part in (left, right, after)]
        weight = numpy_helper.to_array(held[right.input[0]])
        one, two, three = map(integers.exponent_of, scales)
        expected = integers.linear(activation, weight, (one, two, three))
        found["layers"] += 1
        found["values"] += expected.size
        largest = int(np.abs(integers.accumulate(activation, weight)).max(initial=0))
        found["accumulator"] = max(found["accumulator"], largest)
        graph = helper.make_graph(
            [left, right, node, after],
            "layer",
            [helper.make_tensor_value_info(left.input[0], onnx.TensorProto.INT8, activation.shape)],
            [helper.make_tensor_value_info(after.output[0], onnx.TensorProto.INT8, None)],
            [held[name] for name in dict.fromkeys([*left.input, *right.input, *after.input]) if name in held],
        )
        alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        for name, settings in SESSIONS.items():
            options = onnxruntime.SessionOptions()
            if settings is None:
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            for key, value in (settings or {}).items():
                options.add_session_config_entry(key, value)
            session = onnxruntime.InferenceSession(alone.SerializeToString(), options)
            found["different"][name] += int((session.run(None, {left.input[0]: activation})[0] != expected).sum())
    return found


def refusals(path: Path) -> list[str]:
    """What the checker says of models that aren't what they claim."""
    said = []
    for spoil in ("scale", "zero point", "opset"):
        model = onnx.load(path)
        held = initializers(model.graph)
        node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
        if spoil == "opset":
            model.opset_import[0].version = 18
        else:
            tensor = held[node.input[1 if spoil == "scale" else 2]]
            value = np.array(0.3, np.float32) if spoil == "scale" else np.array(1, np.int8)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        try:
            int8.check_power_of_two(model)
        except UserError as error:
            said.append(str(error))
    return said


def errors_of_rounding() -> dict[str, float]:
    """Squared error of a layer's output by gptq, as a share of rounding to nearest, on correlated inputs."""
    drawn = np.random.default_rng(1)
    inputs = drawn.normal(size=(400, 8)) @ drawn.normal(size=(8, 64)) + 0.1 * drawn.normal(size=(400, 64))
    weight = drawn.normal(size=(64, 24))
    found = {}
    for symmetric in (True, False):
        error = []
        for moments in (inputs.T @ inputs, np.eye(64)):
            codes, scales, zeros = gptq.quantize(weight, moments, 16, symmetric)
            made = (codes - zeros.repeat(16, 0).astype(float)) * scales.repeat(16, 0)
            error.append(float(np.square(inputs @ (made - weight)).sum()))
        found["symmetric" if symmetric else "asymmetric"] = error[0] / error[1]
    return found


def main() -> None:
    asked = json.load(sys.stdin)
    told: dict[str, Any] = {}
    if "gemms" in asked:
        gemms(*map(Path, asked["gemms"]))
        outliers(Path(asked["gemms"][0]), Path(asked["outliers"]))
    told["runs"] = {name: run("quantize_onnx.py", *argv) for name, argv in asked["runs"].items()}
    if "layers" in asked:
        path, tokens = map(Path, asked["layers"])
        told["layers"] = layers(path, tokens)
        told["refusals"] = refusals(path)
        told["rounding"] = errors_of_rounding()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
