"""Read and write tokenized rows: one safetensors file per split, without torch or a tokenizer."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from snaketune.core.files import written_whole


@dataclass(frozen=True)
class Rows:
    """Token ids of each row (int32), and which of them belong to answers (bool): only these have a loss."""

    ids: list[np.ndarray]
    answers: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def answer_tokens(self, rows: Iterable[int]) -> int:
        """Count the answer tokens that are predicted; the first token of a row isn't."""
        return sum(int(self.answers[row][1:].sum()) for row in rows)

    def tokens(self, rows: Iterable[int]) -> int:
        return sum(len(self.ids[row]) for row in rows)

    @property
    def prompts(self) -> list[np.ndarray]:
        """The token ids before the last answer of each row."""
        return [ids[: answer_start(answers)] for ids, answers in zip(self.ids, self.answers, strict=True)]


def answer_start(answers: np.ndarray) -> int:
    """Return the position where the last run of answer tokens begins."""
    asked = np.flatnonzero(~answers)
    return int(asked[-1]) + 1 if len(asked) else 0


def count_cut_references(rows: Rows, limit: int | None) -> dict[str, int]:
    """Count the references that a generated answer of ``limit`` tokens can't equal; the longest is the default limit."""
    lengths = [len(ids) - len(prompt) for ids, prompt in zip(rows.ids, rows.prompts, strict=True)]
    limit = limit or max(lengths)
    return {
        "max_new_tokens": limit,
        "rows": len(lengths),
        "longer": sum(length > limit for length in lengths),
        "longest": max(lengths),
        "tokens": sum(lengths),
        "lost_tokens": sum(max(0, length - limit) for length in lengths),
    }


def over_limit(found: dict[str, int], budget: float) -> str:
    """Return a sentence if generated answers are too short for too much of the references, else an empty string."""
    share = found["lost_tokens"] / found["tokens"]
    if share <= budget:
        return ""
    return f"{found['longer']} of {found['rows']} references are longer than `max_new_tokens: {found['max_new_tokens']}` (the longest has {found['longest']}), so {100 * share:.1f} % of their tokens can't be generated, expected at most {100 * budget:g} %; leave `max_new_tokens` out to allow for the longest"


def write_rows(path: Path, rows: Rows) -> None:
    tensors: dict[str, np.ndarray] = {
        "ids": np.concatenate(rows.ids).astype(np.int32),
        "answers": np.concatenate(rows.answers).astype(np.uint8),
        "offsets": np.cumsum([0, *map(len, rows.ids)]).astype(np.int64),
    }
    with written_whole(path) as aside:
        aside.write_bytes(save(tensors))


def read_rows(path: Path) -> Rows:
    tensors = load_file(path)
    bounds = list(itertools.pairwise(tensors["offsets"].tolist()))
    answers = tensors["answers"].astype(bool)
    return Rows([tensors["ids"][a:b] for a, b in bounds], [answers[a:b] for a, b in bounds])
