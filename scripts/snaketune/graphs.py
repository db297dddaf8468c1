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
