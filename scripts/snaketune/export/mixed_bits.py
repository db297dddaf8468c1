"""One graph out of several of the same model: each kind of layer as it is in one of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from snaketune.export.graphs import initializers, linear_nodes, remove_unused, tables

# What a choice of bits gives one number each; a head, tied or not, goes with the table.
KINDS = ("table_and_head", "attention", "gate_and_up", "down")


def kinds_of(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the kind of each linear layer and table by the output of its node: attention by name, others by shape."""
    held, looked_up = initializers(graph), tables(graph)
    vocabularies = {held[node.input[0]].dims[0] for node in looked_up}
    found = {node.output[0]: "table_and_head" for node in looked_up}
    for node in linear_nodes(graph):
        inputs, outputs = held[node.input[1]].dims
        if outputs in vocabularies:
            kind = "table_and_head"
        elif "attn" in node.name or "attention" in node.name:
            kind = "attention"
        else:
            kind = "down" if inputs > outputs else "gate_and_up"
        found[node.output[0]] = kind
    return found


class MixedBits:
    """An fp32 model and quantized copies of it, from which mixed ones are put together."""

    def __init__(self, source: Path, copies: Mapping[int, onnx.ModelProto]):
        """Take ``copies`` by their bits; a kind at 32 bits stays as it is in ``source``."""
        self.source, self.copies = source, copies
        self.kinds = kinds_of(onnx.load(source, load_external_data=False).graph)
        self.held = {bits: initializers(copy.graph) for bits, copy in copies.items()}
        self.makers = {
            bits: {output: node for node in copy.graph.node for output in node.output} for bits, copy in copies.items()
        }

    def model(self, bits: Mapping[str, int], load: bool = False) -> onnx.ModelProto:
        """Return the model with so many bits for each kind; what stays fp32 is read from the source's data file.

        Args:
            load: read it now, rather than refer to the file, which then has to lie next to the model.
        """
        model = onnx.load(self.source, load_external_data=False)
        known = {output for node in model.graph.node for output in node.output}
        constants: dict[str, onnx.TensorProto] = {}
        nodes: list[onnx.NodeProto] = []
        for node in model.graph.node:
            chosen = bits.get(self.kinds.get(node.output[0], ""), 32)
            made = [node] if chosen == 32 else list(self._makers_of(node.output[0], chosen, known))
            held = self.held.get(chosen, {})
            constants |= {name: held[name] for one in made for name in one.input if name in held}
            nodes += made
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        own = initializers(model.graph)
        model.graph.initializer.extend(tensor for name, tensor in constants.items() if name not in own)
        if all(opset.domain != "com.microsoft" for opset in model.opset_import):
            model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        remove_unused(model.graph)
        if load:
            onnx.load_external_data_for_model(model, str(self.source.parent))
        return model

    def _makers_of(self, output: str, bits: int, known: set[str]) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of a copy that stand for one node of the source, which makes ``output``."""
        node = self.makers[bits][output]
        for name in node.input:
            if name in self.makers[bits] and name not in known:
                yield from self._makers_of(name, bits, known)
        yield node


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of all constants, without reading those that lie in another file."""
    sizes = (
        int(next((part.value for part in tensor.external_data if part.key == "length"), len(tensor.raw_data)))
        for tensor in model.graph.initializer
    )
    return sum(sizes)
