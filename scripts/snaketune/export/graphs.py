"""Find and replace nodes of an ONNX graph."""

import onnx

from snaketune.core.errors import UserError


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the constants by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def linear_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the matrix products with a constant weight (inputs, outputs); attention's products have none."""
    held = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    return [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in held]


def tables(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that look up the tokens in a table (vocabulary, width)."""
    held = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    return [
        node
        for node in graph.node
        if node.op_type == "Gather" and node.input[1] == "input_ids" and node.input[0] in held
    ]


def check_known(graph: onnx.GraphProto) -> None:
    """Raise a UserError if a quantizer, which finds MatMul and the embedding table, would leave most weights as they are."""
    sizes = {
        tensor.name: tensor.dims[0] * tensor.dims[1]
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT
    }
    known = {node.input[1] for node in linear_nodes(graph)} | {node.input[0] for node in tables(graph)}
    if sum(size for name, size in sizes.items() if name in known) * 2 < sum(sizes.values()):
        others = {node.op_type for node in graph.node if set(node.input) & (sizes.keys() - known)}
        raise UserError(
            f"most weights of this model are read by {', '.join(sorted(others)) or 'nothing'}, and only those of MatMul are quantized: choose fp32, fp16 or a genai precision"
        )


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the constants that no node reads."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def replace(graph: onnx.GraphProto, node: onnx.NodeProto, made: list[onnx.NodeProto]) -> None:
    """Replace ``node`` with other nodes, in the same place."""
    at = next(i for i, other in enumerate(graph.node) if other.output == node.output)
    after = list(graph.node)[at + 1 :]
    del graph.node[at:]
    graph.node.extend([*made, *after])


def ancestors(graph: onnx.GraphProto, names: list[str]) -> list[onnx.NodeProto]:
    """Return all nodes that these tensors are computed from."""
    makers = {output: node for node in graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    waiting = list(names)
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.output[0] not in found:
            found[node.output[0]] = node
            waiting.extend(node.input)
    return list(found.values())
