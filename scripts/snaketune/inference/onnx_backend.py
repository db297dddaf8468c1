"""Run a decoder that was exported to ONNX with ONNX Runtime alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.inference.decoding import shares_within
from snaketune.training.prefix import read_prefix


class OnnxBackend:
    """Implements decoding.Backend for a `text-generation-with-past` export."""

    options: onnxruntime.RunOptions | None = None

    def __init__(self, model: Path, threads: int, prefix: Path | None = None, provider: str = "CPUExecutionProvider"):
        """Load ``model``, and the trained keys and values of ``prefix`` if it starts from any.

        Raises:
            UserError: the execution provider is missing or doesn't start; there is no silent fallback.
        """
        if provider not in onnxruntime.get_available_providers():
            raise UserError(
                f"execution provider {provider} isn't in this onnxruntime (it has {', '.join(onnxruntime.get_available_providers())}); install a build that has it"
            )
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=[provider])
        if provider not in self.session.get_providers():
            # If its driver or a library is missing, ONNX Runtime silently continues on the CPU.
            raise UserError(
                f"execution provider {provider} doesn't start here (ONNX Runtime took {', '.join(self.session.get_providers())}): install what it needs"
            )
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.outputs = [node.name for node in self.session.get_outputs()]
        self.prefix = read_prefix(prefix) if prefix else []
        self.virtual_tokens = self.prefix[0][0].shape[1] if self.prefix else 0
        config = model.with_name("config.json")
        self.shares_within = shares_within(read_json(config)) if config.is_file() else 0
        self.pads = not self.prefix or self.shares_within == math.inf
        # It rounds the activations of a batch by one scale, which padding, or leaving out the first token, would change:
        # that token's are the largest of many models.
        if b"DynamicQuantize" in model.read_bytes():
            self.shares_within, self.pads = 0, False
        self.past_names = [name for name in self.inputs if name.startswith("past_key_values")]

    def _first_past(self, rows: int) -> dict[str, np.ndarray]:
        if not self.prefix:
            shapes = {name: self.inputs[name].shape for name in self.past_names}
            return {name: np.zeros((rows, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}
        named = {
            f"past_key_values.{i}.{kind}": kept
            for i, layer in enumerate(self.prefix)
            for kind, kept in zip(("key", "value"), layer, strict=True)
        }
        return {name: np.tile(named[name], (rows, 1, 1, 1)) for name in self.past_names}

    def forward(self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        past = past or self._first_past(len(ids))
        seen = next(iter(past.values())).shape[2] if past else 0
        if mask is None:
            whole = np.ones((len(ids), seen + ids.shape[1]), np.int64)
        else:
            whole = np.pad(mask, ((0, 0), (self.virtual_tokens, 0)), constant_values=1).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": whole, **past}
        if "position_ids" in self.inputs:
            feed["position_ids"] = np.maximum(whole.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        found = dict(zip(self.outputs, self.session.run(None, feed, self.options), strict=True))
        return found["logits"], {name: found[name.replace("past_key_values", "present")] for name in self.past_names}

    def branch(self, ids: np.ndarray, past: Any, mask: np.ndarray | None = None) -> np.ndarray:
        copies = len(ids) // len(next(iter(past.values())))
        if mask is not None:
            mask = np.concatenate([mask.repeat(copies, axis=0), np.ones_like(ids)], axis=1)
        return self.forward(ids, self.repeat(past, copies), ids.shape[1], mask)[0]

    def repeat(self, past: Any, rows: int) -> Any:
        return {name: kept.repeat(rows, axis=0) for name, kept in past.items()}
