"""Batches of rows: their order, their division into micro-batches, and the tensors of one."""

from typing import Any

import numpy as np
import torch

from snaketune.data.tokens import Rows

IGNORED = -100


def plan_batches(rows: Rows, batch_rows: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the row numbers of each global batch: shuffled by the seed, rows of similar length together."""
    batches: list[list[int]] = []
    for epoch in range(epochs):
        generator = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = generator.permutation(len(rows))
        grouped = [
            sorted(part, key=lambda row: (len(rows.ids[row]), row))
            for part in np.array_split(order, max(1, len(rows) // (batch_rows * 16)))
        ]
        flat = [int(row) for part in grouped for row in part]
        cut = [flat[i : i + batch_rows] for i in range(0, len(flat), batch_rows)]
        batches += [cut[i] for i in generator.permutation(len(cut))]
    return batches


def cut(numbers: list[int], rows: Rows, most_rows: int, most_tokens: float) -> list[list[int]]:
    """Cut row numbers into runs of at most so many rows and, padding included, tokens; a longer row is alone."""
    runs: list[list[int]] = []
    longest = 0
    for number in numbers:
        longest = max(longest, len(rows.ids[number]))
        if not runs or len(runs[-1]) == most_rows or longest * (len(runs[-1]) + 1) > most_tokens:
            runs.append([])
            longest = len(rows.ids[number])
        runs[-1].append(number)
    return runs


def portions(
    batch: list[int], rows: Rows, rank: int, world: int, most_rows: int, most_tokens: float
) -> list[tuple[list[int], float]]:
    """Split a rank's share of a global batch into micro-batches as ``cut`` does, each with its weight.

    Every rank gets the same number, because under ZeRO forward and backward are collective: a rank
    with no rows left repeats one with weight 0.
    """
    shares = [cut(batch[one::world], rows, most_rows, most_tokens) for one in range(world)]
    missing = max(map(len, shares)) - len(shares[rank])
    return [(part, 1.0) for part in shares[rank]] + [(batch[:1], 0.0)] * missing


def collate(rows: Rows, numbers: list[int], pad: int, device: torch.device) -> tuple[dict[str, Any], torch.Tensor]:
    """Build model inputs and targets, padded on the left so that completions end together.

    Logits are then needed only for the last k positions, which saves most of the head's work.

    Returns:
        Inputs with ``input_ids``, ``attention_mask`` and ``position_ids`` of shape (rows, longest)
        and ``logits_to_keep`` = k; and targets of shape (rows, k - 1), IGNORED outside completions.
    """
    longest = max(len(rows.ids[n]) for n in numbers)
    ids = torch.full((len(numbers), longest), pad)
    mask = torch.zeros((len(numbers), longest), dtype=torch.long)
    labels = torch.full((len(numbers), longest), IGNORED)
    for i, n in enumerate(numbers):
        row = torch.from_numpy(rows.ids[n].astype(np.int64))
        ids[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
        answers = torch.from_numpy(rows.answers[n]).clone()
        answers[0] = False
        labels[i, longest - len(row) :][answers] = row[answers]
    keep = int((labels != IGNORED).any(0).long().flip(0).cumsum(0).argmax()) + 2
    inputs = {
        "input_ids": ids.to(device),
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device),
        "logits_to_keep": keep,
        "use_cache": False,
    }
    if not bool(mask.all()):
        inputs["attention_mask"] = mask.to(device)
    return inputs, labels[:, longest - keep + 1 :].to(device)
