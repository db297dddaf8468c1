"""Batches of rows: their order, their division into micro-batches, and the tensors of one."""

import math
from typing import Any

import numpy as np
import torch

from snaketune.data.tokens import Rows
from snaketune.training.shared_prompts import LOOKUPS, Sequence, computed_tokens, layout_of, sequence_of

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


def cut(numbers: list[int], rows: Rows, most_rows: int, most_tokens: float, shared: bool = False) -> list[list[int]]:
    """Cut row numbers into runs of at most so many rows and computed tokens; a longer row is alone.

    Computed tokens include padding, or else are those of rows that share what they begin with: these are put in order.
    """
    if shared:
        numbers = sorted(numbers, key=lambda number: rows.ids[number].tobytes())
    runs: list[list[int]] = []
    for number in numbers:
        if not runs or len(runs[-1]) == most_rows or _too_many([*runs[-1], number], rows, most_tokens, shared):
            runs.append([])
        runs[-1].append(number)
    return runs


def _too_many(numbers: list[int], rows: Rows, most_tokens: float, shared: bool) -> bool:
    if most_tokens == math.inf:
        return False
    computed, padded = (tokens_of(numbers, rows, one) for one in (shared, False))
    return computed > most_tokens or padded > LOOKUPS * most_tokens


def tokens_of(numbers: list[int], rows: Rows, shared: bool) -> int:
    """Count the tokens that are computed for a micro-batch."""
    if shared:
        return computed_tokens([rows.ids[number] for number in numbers])[0]
    return len(numbers) * max(len(rows.ids[number]) for number in numbers)


def portions(
    batch: list[int], rows: Rows, world: int, most_rows: int, most_tokens: float, shared: bool = False
) -> list[list[tuple[list[int], float]]]:
    """Split each rank's share of a global batch into micro-batches as ``cut`` does, each with its weight.

    Every rank gets the same number, because under ZeRO forward and backward are collective: a rank
    with no rows left repeats one with weight 0.
    """
    shares = [cut(batch[rank::world], rows, most_rows, most_tokens, shared) for rank in range(world)]
    most = max(map(len, shares))
    return [[(part, 1.0) for part in share] + [(batch[:1], 0.0)] * (most - len(share)) for share in shares]


def collate(
    rows: Rows, numbers: list[int], pad: int, device: torch.device, shared: bool = False
) -> tuple[dict[str, Any], torch.Tensor]:
    """Build model inputs and targets of a micro-batch; rows that share what they begin with are one sequence.

    Returns:
        Inputs of the model; and targets, IGNORED outside completions, as ``answer_loss`` takes them.
    """
    if shared and computed_tokens([rows.ids[number] for number in numbers])[1]:
        return _in_sequence(rows, numbers, device)
    return _padded(rows, numbers, pad, device)


def _in_sequence(rows: Rows, numbers: list[int], device: torch.device) -> tuple[dict[str, Any], torch.Tensor]:
    """Lay rows out one after the other.

    Returns:
        Inputs with ``input_ids`` and ``position_ids`` of shape (1, tokens), ``logits_to_keep`` with the positions that
        predict a completion token, and ``layout`` for attention; and targets of shape (positions, most of one).
    """
    sequence = sequence_of([rows.ids[number] for number in numbers])
    positions, targets = _predictions(sequence, rows, numbers)
    inputs = {
        "input_ids": torch.from_numpy(sequence.ids.astype(np.int64))[None].to(device),
        "position_ids": torch.from_numpy(sequence.positions)[None].to(device),
        "logits_to_keep": torch.from_numpy(positions).to(device),
        "use_cache": False,
        "layout": layout_of(sequence, device),
    }
    return inputs, torch.from_numpy(targets).to(device)


def _predictions(sequence: Sequence, rows: Rows, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions that predict completion tokens, and what they predict in each row that has them."""
    learnt = [rows.answers[number][1:] for number in numbers]
    at = np.concatenate([path[:-1][one] for path, one in zip(sequence.paths, learnt, strict=True)])
    tokens = np.concatenate([rows.ids[number][1:][one] for number, one in zip(numbers, learnt, strict=True)])
    order = np.argsort(at, kind="stable")
    positions, first, counts = np.unique(at[order], return_index=True, return_counts=True)
    targets = np.full((len(positions), counts.max(initial=1)), IGNORED)
    targets[np.repeat(np.arange(len(positions)), counts), np.arange(len(at)) - np.repeat(first, counts)] = tokens[order]
    return positions, targets


def _padded(rows: Rows, numbers: list[int], pad: int, device: torch.device) -> tuple[dict[str, Any], torch.Tensor]:
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
