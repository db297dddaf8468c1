"""Finding things in an ONNX graph."""

import onnx


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The constants by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def linear_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Matrix products with a constant weight (inputs, outputs); those of attention have none."""
    held = initializers(graph)
    return [
        node
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in held and len(held[node.input[1]].dims) == 2
    ]


def remove_unused(graph: onnx.GraphProto) -> None:
    """Drop the constants that no node reads any more."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def replace(graph: onnx.GraphProto, node: onnx.NodeProto, made: list[onnx.NodeProto]) -> None:
    """Put other nodes where ``node`` is."""
    at = next(i for i, other in enumerate(graph.node) if other.output == node.output)
    after = list(graph.node)[at + 1 :]
    del graph.node[at:]
    graph.node.extend([*made, *after])


def ancestors(graph: onnx.GraphProto, names: list[str]) -> list[onnx.NodeProto]:
    """All nodes that these tensors are computed by."""
    makers = {output: node for node in graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    waiting = list(names)
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.output[0] not in found:
            found[node.output[0]] = node
            waiting.extend(node.input)
    return list(found.values())
