"""Tokenized rows on disk: one safetensors file a split, read without torch or a tokenizer."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from snaketune.files import read_json, written_whole


@dataclass(frozen=True)
class Rows:
    """Token ids of each row (int32) and the index of its first answer token (loss starts there)."""

    ids: list[np.ndarray]
    answer_starts: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    def answer_tokens(self, rows: list[int]) -> int:
        return sum(len(self.ids[row]) - max(1, self.answer_starts[row]) for row in rows)

    def tokens(self, rows: list[int]) -> int:
        return sum(len(self.ids[row]) for row in rows)

    @property
    def prompts(self) -> list[np.ndarray]:
        return [ids[:start] for ids, start in zip(self.ids, self.answer_starts, strict=True)]


def write_rows(path: Path, rows: Rows) -> None:
    tensors: dict[str, np.ndarray] = {
        "ids": np.concatenate(rows.ids).astype(np.int32),
        "offsets": np.cumsum([0, *map(len, rows.ids)]).astype(np.int64),
        "answer_starts": np.array(rows.answer_starts, dtype=np.int32),
    }
    with written_whole(path) as aside:
        aside.write_bytes(save(tensors))


def read_rows(path: Path) -> Rows:
    tensors = load_file(path)
    bounds = tensors["offsets"].tolist()
    return Rows([tensors["ids"][a:b] for a, b in itertools.pairwise(bounds)], tensors["answer_starts"].tolist())


def read_candidates(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Labels, and the token ids of the answer that each stands for."""
    content = read_json(path)
    return list(content), [np.array(ids, dtype=np.int64) for ids in content.values()]
