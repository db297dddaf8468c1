"""A transformers model as a backend: the parent that every export is compared with."""

import copy
from typing import Any

import numpy as np
import torch


class TorchBackend:
    """Implements scoring.Backend over a causal language model of transformers."""

    def __init__(self, model: Any):
        self.model = model.eval()

    @torch.inference_mode()
    def forward(self, ids: np.ndarray, past: Any, keep: int) -> tuple[np.ndarray, Any]:
        # The cache is changed in place, and the caller may go on from it more than once.
        past = copy.deepcopy(past)
        found = self.model(
            input_ids=torch.from_numpy(ids).to(self.model.device),
            past_key_values=past,
            use_cache=True,
            logits_to_keep=keep,
        )
        return found.logits.float().cpu().numpy(), found.past_key_values
