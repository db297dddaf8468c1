"""Give the linear layers of an ONNX graph optional inputs, so that an adapter can be switched at run time."""

import re

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from snaketune.core.errors import UserError

# onnxruntime-genai's builder splits these layers of transformers in two.
HALVES = {"gate_up_proj": ("gate_proj", "up_proj")}


def linear_layers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the products with a weight, quantized or not, by the layer's path in transformers.

    Exporters name a node after its module's path, and quantizers add a suffix; a layer that the builder split has both
    halves, in order.
    """
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        named = re.fullmatch(r"/?(.+)/MatMul(NBits|_Q[48])?", node.name)
        if named and (node.op_type == "MatMulNBits" or (node.op_type == "MatMul" and node.input[1] in weights)):
            found[named[1].replace("/", ".").replace(".attn.", ".self_attn.")] = [node]
    for whole, halves in HALVES.items():
        for path in [path for path in found if path.endswith(f".{halves[0]}")]:
            both = [found.get(f"{path.removesuffix(halves[0])}{half}", []) for half in halves]
            if all(both):
                found.setdefault(f"{path.removesuffix(halves[0])}{whole}", [node for one in both for node in one])
    return found


def make_switchable(model: onnx.ModelProto, parts: dict[str, list[str]]) -> dict[str, list[int | None]]:
    """Give the layers that adapters target their inputs, in place; a UserError if a target matches no layer.

    ``parts`` are those of ``parts_of_all``. Returns the shape of each new input, None where it is the adapter's rank.
    """
    layers = linear_layers(model.graph)
    shapes: dict[str, list[int | None]] = {}
    first: list[onnx.NodeProto] = []
    around: dict[str, tuple[list[onnx.NodeProto], list[onnx.NodeProto]]] = {}
    for target, wanted in parts.items():
        matching = [path for path in layers if path == target or path.endswith(f".{target}")]
        if not matching:
            raise UserError(
                f"no linear layer of the ONNX graph is named {target}; they are {', '.join(sorted({path.rsplit('.', 1)[-1] for path in layers}))}"
            )
        for path in matching:
            made, names, splits = _inputs(model.graph, path, layers[path], wanted)
            shapes |= made
            first += splits
            for number, node in enumerate(layers[path]):
                around[node.name] = _adapted(node, {part: values[number] for part, values in names.items()})
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        before, after = around.get(node.name, ([], []))
        nodes += [*before, node, *after]
    del model.graph.node[:]
    model.graph.node.extend([*first, *nodes])
    return shapes


def _inputs(
    graph: onnx.GraphProto, path: str, nodes: list[onnx.NodeProto], parts: list[str]
) -> tuple[dict[str, list[int | None]], dict[str, list[str]], list[onnx.NodeProto]]:
    """Add a layer's inputs, whose defaults change nothing; return their shapes, and each node's value by part.

    What belongs to the outputs is split like the layer itself, by the nodes returned last, so that one adapter fits
    both graphs.
    """
    sizes = [_size(graph, node) for node in nodes]
    taken, given = sizes[0][0], sum(outputs for _, outputs in sizes)
    # The rank is 0, and the outputs' axis is None where there is none.
    forms: dict[str, tuple[np.ndarray, int | None]] = {
        "input_scale": (np.ones(taken), None),
        "lora_A": (np.zeros((taken, 0)), None),
        "lora_B": (np.zeros((0, given)), 1),
        "output_scale": (np.ones(given), 0),
    }
    shapes, names, splits = {}, {}, []
    for part in parts:
        name, (default, axis) = f"{path}.{part}", forms[part]
        shapes[name] = [size or None for size in default.shape]
        dims = [size or f"{path}.rank" for size in default.shape]
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        graph.initializer.append(numpy_helper.from_array(default.astype(np.float32), name))
        names[part] = [name] * len(nodes)
        if axis is not None and len(nodes) > 1:
            names[part] = [f"{name}.{n}" for n in range(len(nodes))]
            options = {"name": f"{name}/Split", "axis": axis, "num_outputs": len(nodes)}
            splits.append(helper.make_node("Split", [name], names[part], **options))
    return shapes, names, splits


def _size(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[int, int]:
    """Return the inputs and outputs of a layer."""
    options = {one.name: one.i for one in node.attribute}
    if "K" in options:
        return options["K"], options["N"]
    inputs, outputs = next(tensor.dims for tensor in graph.initializer if tensor.name == node.input[1])
    return inputs, outputs


def _adapted(node: onnx.NodeProto, names: dict[str, str]) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Turn y = W x into y = s * (W (t * x) + B A (t * x)); return the nodes before and after this one."""
    before, after, result = [], [], node.output[0]

    def step(kind: str, inputs: list[str], name: str) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [f"{node.name}/{name}"], name=f"{node.name}/{name}")

    if scale := names.get("input_scale"):
        before.append(step("Mul", [node.input[0], scale], "input_scale"))
        node.input[0] = before[0].output[0]
    if "lora_A" in names:
        after.append(step("MatMul", [node.input[0], names["lora_A"]], "lora_A"))
        after.append(step("MatMul", [after[-1].output[0], names["lora_B"]], "lora_B"))
        after.append(step("Add", [f"{node.name}/base", after[-1].output[0]], "adapted"))
    if scale := names.get("output_scale"):
        after.append(step("Mul", [after[-1].output[0] if after else f"{node.name}/base", scale], "output_scale"))
    if after:
        node.output[0], after[-1].output[0] = f"{node.name}/base", result
    return before, after
