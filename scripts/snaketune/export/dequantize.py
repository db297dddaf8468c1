"""The weights that MatMulNBits, MatMulBnb4 and GatherBlockQuantized compute with, as numbers."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from snaketune.core.errors import UserError
from snaketune.export.graphs import initializers
from snaketune.export.runtime_adapters.graph import fused_layers, linear_layers

KINDS = ("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized")
# The levels of NF4, as bitsandbytes and ONNX Runtime have them: arXiv 2305.14314, appendix E.
NF4 = np.array([-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0, 0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1], np.float32)  # fmt: skip


def codes_in(stored: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes along the last axis: of bytes, lower half first; ONNX's own types of 4 bits are read unpacked."""
    if stored.dtype != np.uint8:
        return stored.astype(np.int8)
    return stored if bits == 8 else np.stack([stored & 15, stored >> 4], -1).reshape(*stored.shape[:-1], -1)


def dequantized(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, bits: int) -> np.ndarray:
    """Return (code - zero point) * scale in fp32, as the kernels compute it: (rows, columns).

    Args:
        codes: (rows, blocks, columns of a block).
        scales: one for each row and block, in this order.
        zeros: as many floats, or codes packed for each row; without any, the middle of unsigned codes is zero.
    """
    rows, blocks, _ = codes.shape
    taken = np.full((rows, blocks), 2 ** (bits - 1) if codes.dtype == np.uint8 else 0)
    if zeros is not None:
        floats = zeros.dtype == scales.dtype
        taken = zeros if floats else codes_in(zeros.reshape(rows, -1), bits)[:, :blocks]
    of_blocks = (rows, blocks, 1)
    weight = (codes.astype(np.float32) - taken.astype(np.float32).reshape(of_blocks)) * scales.reshape(of_blocks)
    return np.asarray(weight, np.float32).reshape(rows, -1)


def of_nf4(packed: np.ndarray, scales: np.ndarray, options: dict[str, int]) -> np.ndarray:
    """Return level times scale: (outputs, inputs); blocks follow one another through the rows, upper half of a byte first."""
    count = options["N"] * options["K"]
    levels = NF4[np.stack([packed >> 4, packed & 15], -1).reshape(-1)[:count]]
    return (levels * np.repeat(scales, options["block_size"])[:count]).reshape(options["N"], options["K"])


class Numbers:
    """The quantized weights of a graph."""

    def __init__(self, graph: onnx.GraphProto):
        self.held = initializers(graph)
        self.makers = {output: node for node in graph.node for output in node.output}
        found = {node.name.strip("/").rpartition("/")[0].replace("/", "."): [node] for node in graph.node}
        self.nodes = {
            path: nodes
            for path, nodes in (found | linear_layers(graph)).items()
            if all(node.op_type in KINDS for node in nodes)
        }
        self.fused = {path: one for path, one in fused_layers(graph).items() if one[0].op_type in KINDS}
        self.left = {node.name for node in graph.node if node.op_type in KINDS}

    def of(self, path: str) -> np.ndarray | None:
        """Return what a module of transformers, by its path, multiplies with or looks up: fp32, (outputs, inputs).

        None if the graph has it in floats.
        """
        if path in self.fused and path not in self.nodes:
            node, start, end = self.fused[path]
            self.left.discard(node.name)
            return self._weight(node)[start:end]
        nodes = self.nodes.get(path, [])
        self.left -= {node.name for node in nodes}
        return np.concatenate([self._weight(node) for node in nodes]) if nodes else None

    def check_all_taken(self) -> None:
        """Raise a UserError if nobody asked for one of them."""
        if self.left:
            raise UserError(
                f"{min(self.left)} of the ONNX graph is no module of the base, so nothing can be trained on its weights"
            )

    def _weight(self, node: onnx.NodeProto) -> np.ndarray:
        options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        layer = node.op_type != "GatherBlockQuantized"
        names = [node.input[1 if layer else 0], node.input[2], *node.input[3:4]]
        # The table's bytes may be those of the head, in another form.
        while names[0] not in self.held:
            names[0] = self.makers[names[0]].input[0]
        stored, scales, *zeros = (numpy_helper.to_array(self.held[name]) for name in names if name)
        if node.op_type == "MatMulBnb4":
            return of_nf4(stored, scales, options)
        codes = codes_in(stored, options.get("bits", 4))
        codes = codes.reshape(len(codes), -1, options["block_size"])
        weight = dequantized(codes, scales, zeros[0] if zeros else None, options.get("bits", 4))
        return weight[:, : options["K"]] if layer else weight
