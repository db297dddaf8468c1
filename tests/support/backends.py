"""Backends without a model, whose logits are known: the next token depends on the sum of all tokens so far."""

import math
from typing import Any

import numpy as np

from snaketune.inference.genai_backend import GenaiBackend

VOCABULARY, CONTEXT = 11, 20
TABLE = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))


class SumBackend:
    """A lost past is seen, and padding."""

    context = CONTEXT
    shares_within = math.inf
    pads = True

    def forward(self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        seen = np.ones_like(ids) if mask is None else mask[:, -ids.shape[1] :]
        sums = np.where(seen == 1, ids, 0).cumsum(1) + (0 if past is None else past)
        return TABLE[sums % VOCABULARY][:, -keep:], sums[:, -1:]

    def branch(self, ids: np.ndarray, past: Any, mask: np.ndarray | None = None) -> np.ndarray:
        return self.forward(ids, self.repeat(past, len(ids) // len(past)), ids.shape[1])[0]

    def repeat(self, past: Any, rows: int) -> Any:
        return past.repeat(rows, axis=0)


class Generator:
    """Keeps onnxruntime-genai's rules; each call's logits overwrite the last ones."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def append_tokens(self, ids: np.ndarray) -> None:
        assert ids.dtype == np.int32
        assert len(ids)
        self.ids += ids.tolist()
        self.logits = TABLE[np.cumsum(self.ids)[-len(ids) :] % VOCABULARY][None]

    def get_output(self, name: str) -> np.ndarray:
        assert name == "logits"
        return self.logits

    def token_count(self) -> int:
        return len(self.ids)

    def rewind_to(self, count: int) -> None:
        assert count <= len(self.ids)
        del self.ids[count:]


def without_model() -> GenaiBackend:
    made = GenaiBackend.__new__(GenaiBackend)
    made.context, made._generator = CONTEXT, Generator  # type: ignore[method-assign]
    return made
