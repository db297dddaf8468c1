"""Run a transformers model: the parent that every export is compared with."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from snaketune.inference.decoding import shares_within
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
        self.shares_within = shares_within(model.config.to_dict())
        self.pads = not self.prefix or self.shares_within == math.inf

    def _first_past(self, rows: int) -> DynamicCache | None:
        layers = [tuple(kept.expand(rows, -1, -1, -1) for kept in layer) for layer in self.prefix]
        return DynamicCache(layers) if layers else None

    def _run(self, ids: torch.Tensor, past: Any, keep: int, **inputs: torch.Tensor) -> tuple[np.ndarray, Any]:
        moved = {name: tensor.to(self.model.device) for name, tensor in {"input_ids": ids, **inputs}.items()}
        found = self.model(past_key_values=past, use_cache=True, logits_to_keep=keep, **moved)
        return found.logits.float().cpu().numpy(), found.past_key_values

    def _padded(self, mask: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.pad(mask, ((0, 0), (self.virtual_tokens, 0)), constant_values=1))

    @torch.inference_mode()
    def forward(self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        if past is None:
            past = self._first_past(len(ids))
        inputs: dict[str, torch.Tensor] = {}
        if mask is not None:
            whole = self._padded(mask)
            inputs = {"attention_mask": whole, "position_ids": positions(whole)[:, -ids.shape[1] :]}
        return self._run(torch.from_numpy(ids), past, keep, **inputs)

    @torch.inference_mode()
    def branch(self, ids: np.ndarray, past: Any, mask: np.ndarray | None = None) -> np.ndarray:
        rows, seen = past.layers[0].keys.shape[0], past.get_seq_length()
        whole = torch.ones(rows, seen, dtype=torch.long) if mask is None else self._padded(mask)
        (total, length), copies = ids.shape, len(ids) // rows
        if seen + length > self.shares_within:
            mask = np.concatenate([whole.repeat_interleave(copies, 0).numpy(), np.ones_like(ids)], 1)
            return self.forward(ids, self.repeat(past, copies), length, mask[:, self.virtual_tokens :])[0]
        # The copies are one sequence that sees each past once, and each copy only itself: no cache is copied.
        own = torch.block_diag(*[torch.ones(length, length).tril()] * copies).expand(rows, -1, -1)
        sees = torch.cat([whole[:, None].expand(-1, copies * length, -1), own], 2) > 0
        hidden = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
        at = whole.sum(1, keepdim=True) + torch.arange(length).repeat(copies)
        inputs = {"attention_mask": hidden[:, None].to(self.model.dtype), "position_ids": at}
        found = self._run(torch.from_numpy(ids).reshape(rows, -1), _copied(past), copies * length, **inputs)[0]
        return found.reshape(total, length, -1)

    def repeat(self, past: Any, rows: int) -> Any:
        past = _copied(past)
        past.batch_repeat_interleave(rows)
        return past


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Return the positions of tokens by a mask, which is 0 for padding on the left: (rows, tokens)."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _copied(past: Any) -> Any:
    """Return a cache that can be appended to without changing ``past``: layers replace their tensors, and never write into them."""
    past = copy.copy(past)
    past.layers = [copy.copy(layer) for layer in past.layers]
    return past
