"""Give the linear layers of an ONNX graph optional inputs, so that an adapter can be switched at run time."""

import itertools
import re

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from snaketune.core.errors import UserError

# onnxruntime-genai's builder splits these layers of transformers in two.
HALVES = {"gate_up_proj": ("gate_proj", "up_proj")}
# And it fuses those to such a layer, with their outputs in this order.
FUSED = HALVES | {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
GROUPED = "GroupQueryAttention"


def linear_layers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the products with a weight, quantized or not, by the layer's path in transformers.

    Exporters name a node after its module's path, and quantizers add a suffix; a layer that the builder split has both
    halves, in order.
    """
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        named = re.fullmatch(r"/?(.+)/MatMul(NBits|_Q[48]|_Bnb4)?", node.name)
        if named and (
            node.op_type in ("MatMulNBits", "MatMulBnb4") or (node.op_type == "MatMul" and node.input[1] in weights)
        ):
            found[named[1].replace("/", ".").replace(".attn.", ".self_attn.")] = [node]
    for whole, halves in HALVES.items():
        for path in [path for path in found if path.endswith(f".{halves[0]}")]:
            both = [found.get(f"{path.removesuffix(halves[0])}{half}", []) for half in halves]
            if all(both):
                found.setdefault(f"{path.removesuffix(halves[0])}{whole}", [node for one in both for node in one])
    return found


def fused_layers(graph: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto, int, int]]:
    """Return the layers of transformers that the builder fused to one: its node, and where in it their outputs begin and end.

    The attention says how wide queries are beside keys and values.
    """
    layers = linear_layers(graph)
    heads = next(({one.name: one.i for one in n.attribute} for n in graph.node if n.op_type == GROUPED), {})
    found: dict[str, tuple[onnx.NodeProto, int, int]] = {}
    for whole, parts in FUSED.items():
        shares = [1, 1] if whole in HALVES else [heads.get(key, 1) for key in ("num_heads", *2 * ("kv_num_heads",))]
        for path in [one for one in layers if one.endswith(f".{whole}") and len(layers[one]) == 1]:
            node, block = layers[path][0], path.removesuffix(whole)
            each = _size(graph, node)[1] // sum(shares)
            ends = list(itertools.accumulate((each * share for share in shares), initial=0))
            found |= {f"{block}{part}": (node, ends[n], ends[n + 1]) for n, part in enumerate(parts)}
    return found


def make_switchable(model: onnx.ModelProto, parts: dict[str, list[str]]) -> dict[str, list[int | None]]:
    """Give the layers that adapters target their inputs, in place; a UserError if a target matches no layer.

    ``parts`` are those of ``parts_of_all``. Returns the shape of each new input, None where it is the adapter's rank.
    Of a layer that the builder fused, all parts get what one of them needs.
    """
    graph = model.graph
    layers, fused = linear_layers(graph), fused_layers(graph)
    shapes: dict[str, list[int | None]] = {}
    first: list[onnx.NodeProto] = []
    around: dict[str, tuple[list[onnx.NodeProto], list[onnx.NodeProto]]] = {}
    of_fused: dict[str, set[str]] = {}
    for target, wanted in parts.items():
        matching = [path for path in layers if path == target or path.endswith(f".{target}")]
        within = [path for path in fused if path.endswith(f".{target}")] if not matching else []
        if not matching and not within:
            raise UserError(
                f"no linear layer of the ONNX graph is named {target}; they are {', '.join(sorted({path.rsplit('.', 1)[-1] for path in layers}))}"
            )
        for path in matching:
            made, names, splits = _inputs(graph, path, [_size(graph, node) for node in layers[path]], wanted)
            shapes |= made
            first += splits
            for number, node in enumerate(layers[path]):
                around[node.name] = _adapted(node, {part: [values[number]] for part, values in names.items()})
        for path in within:
            of_fused.setdefault(fused[path][0].name, set()).update(wanted)
    for name, needed in of_fused.items():
        siblings = {path: found for path, found in fused.items() if found[0].name == name}
        if "input_scale" in needed:
            raise UserError(
                f"{name} of the ONNX graph fuses {', '.join(siblings)}, whose inputs can't be scaled separately"
            )
        values: dict[str, list[str]] = {}
        for path, (node, start, end) in siblings.items():
            made, names, _ = _inputs(graph, path, [(_size(graph, node)[0], end - start)], sorted(needed))
            shapes |= made
            for part, [one] in names.items():
                values.setdefault(part, []).append(one)
        around[name] = _adapted(node, values)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        before, after = around.get(node.name, ([], []))
        nodes += [*before, node, *after]
    del graph.node[:]
    graph.node.extend([*first, *nodes])
    return shapes


def _inputs(
    graph: onnx.GraphProto, path: str, sizes: list[tuple[int, int]], parts: list[str]
) -> tuple[dict[str, list[int | None]], dict[str, list[str]], list[onnx.NodeProto]]:
    """Add a layer's inputs, whose defaults change nothing; return their shapes, and each node's value by part.

    ``sizes`` are the inputs and outputs of each of its nodes. What belongs to the outputs is split like the layer itself, by the nodes returned last, so that one adapter fits
    both graphs.
    """
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
        names[part] = [name] * len(sizes)
        if axis is not None and len(sizes) > 1:
            names[part] = [f"{name}.{n}" for n in range(len(sizes))]
            options = {"name": f"{name}/Split", "axis": axis, "num_outputs": len(sizes)}
            splits.append(helper.make_node("Split", [name], names[part], **options))
    return shapes, names, splits


def _size(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[int, int]:
    """Return the inputs and outputs of a layer."""
    options = {one.name: one.i for one in node.attribute}
    if "K" in options:
        return options["K"], options["N"]
    inputs, outputs = next(tensor.dims for tensor in graph.initializer if tensor.name == node.input[1])
    return inputs, outputs


def _adapted(node: onnx.NodeProto, names: dict[str, list[str]]) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Turn y = W x into y = s * (W (t * x) + B A (t * x)); return the nodes before and after this one.

    Of a fused layer there is a value for each part, in the order of its outputs.
    """
    before, after, result = [], [], node.output[0]

    def step(kind: str, inputs: list[str], name: str, **options: int) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [f"{node.name}/{name}"], name=f"{node.name}/{name}", **options)

    def joined(values: list[str], name: str) -> str:
        if len(values) > 1:
            after.append(step("Concat", values, name, axis=-1))
        return after[-1].output[0] if len(values) > 1 else values[0]

    if scale := names.get("input_scale"):
        before.append(step("Mul", [node.input[0], *scale], "input_scale"))
        node.input[0] = before[0].output[0]
    updated = f"{node.name}/base"
    if "lora_A" in names:
        products = []
        for number, (right, left) in enumerate(zip(names["lora_A"], names["lora_B"], strict=True)):
            end = f".{number}" if len(names["lora_A"]) > 1 else ""
            after.append(step("MatMul", [node.input[0], right], f"lora_A{end}"))
            after.append(step("MatMul", [after[-1].output[0], left], f"lora_B{end}"))
            products.append(after[-1].output[0])
        after.append(step("Add", [updated, joined(products, "lora")], "adapted"))
        updated = after[-1].output[0]
    if scale := names.get("output_scale"):
        after.append(step("Mul", [updated, joined(scale, "scales")], "output_scale"))
    if after:
        node.output[0], after[-1].output[0] = f"{node.name}/base", result
    return before, after
