"""Run a transformers model: the parent that every export is compared with."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from snaketune.training.prefix import read_prefix


class TorchBackend:
    """Implements decoding.Backend for a causal language model of transformers."""

    def __init__(self, model: Any, prefix: Path | None = None):
        """Run ``model``, starting from the trained keys and values of ``prefix`` if there are any."""
        self.model = model.eval()
        layers = read_prefix(prefix) if prefix else []
        self.prefix = [
            tuple(torch.from_numpy(kept).to(model.device, model.dtype) for kept in layer) for layer in layers
        ]
        self.virtual_tokens = self.prefix[0][0].shape[1] if self.prefix else 0

    def _first_past(self, rows: int) -> DynamicCache | None:
        layers = [tuple(kept.expand(rows, -1, -1, -1) for kept in layer) for layer in self.prefix]
        return DynamicCache(layers) if layers else None

    @torch.inference_mode()
    def forward(
        self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None, copies: int = 0
    ) -> tuple[np.ndarray, Any]:
        if past is None:
            past = self._first_past(len(ids))
        elif copies:
            # The model appends to the cache in place.
            past = copy.deepcopy(past)
            past.batch_repeat_interleave(copies)
        inputs: dict[str, torch.Tensor] = {}
        if mask is not None:
            whole = torch.from_numpy(np.pad(mask, ((0, 0), (self.virtual_tokens, 0)), constant_values=1))
            positions = (whole.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            inputs = {"attention_mask": whole.to(self.model.device), "position_ids": positions.to(self.model.device)}
        found = self.model(
            input_ids=torch.from_numpy(ids).to(self.model.device),
            past_key_values=past,
            use_cache=True,
            logits_to_keep=keep,
            **inputs,
        )
        return found.logits.float().cpu().numpy(), found.past_key_values
