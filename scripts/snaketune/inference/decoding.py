"""Deterministic decoding and scoring with any backend."""

import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import save_file

from snaketune.core.files import written_whole
from snaketune.data.tokens import Rows

BATCH_ROWS = 32
TOKENS_AT_ONCE = 2048
# 64 MB in fp32: for a large vocabulary, less fits than the tokens would allow.
LOGITS_AT_ONCE = 16_000_000
# With its header, a file of probe logits stays below 16 MB.
PROBE_BYTES = 15_900_000


class Backend(Protocol):
    """A causal language model that keeps a cache of past keys and values."""

    def forward(
        self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None, copies: int = 0
    ) -> tuple[np.ndarray, Any]:
        """Run ids (rows, length; int64) after ``past`` (None at first).

        ``mask`` (rows, past and ids; int64) is 0 where a row is padded on the left. ``past`` can't be used
        again, unless ids has ``copies`` rows for each of its rows.

        Returns the logits of at least the last ``keep`` positions, (rows, >= keep, vocabulary),
        and the longer past.
        """
        ...


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def equal_lengths(prompts: list[np.ndarray]) -> Iterator[list[int]]:
    """Yield batches of row numbers whose prompts have one length: no padding, so no mask to get wrong."""
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for _, group in groupby(order, key=lambda number: len(prompts[number])):
        numbers = list(group)
        for start in range(0, len(numbers), BATCH_ROWS):
            yield numbers[start : start + BATCH_ROWS]


def candidate_likelihoods(backend: Backend, prompts: list[np.ndarray], candidates: list[np.ndarray]) -> np.ndarray:
    """Return the log-likelihood in nats of each candidate answer after each prompt: (prompts, candidates).

    A prompt is read once; candidates of one length are scored together after it.
    """
    scores = np.zeros((len(prompts), len(candidates)))
    lengths = [len(candidate) for candidate in candidates]
    for numbers in equal_lengths(prompts):
        ids = np.stack([prompts[n] for n in numbers]).astype(np.int64)
        logits, past = backend.forward(ids, None, 1)
        scores[numbers] = log_softmax(logits[:, -1])[:, [candidate[0] for candidate in candidates]]
        for length in sorted({*lengths} - {1}):
            group = [n for n in range(len(candidates)) if lengths[n] == length]
            by_cache = 4 * TOKENS_AT_ONCE // (ids.shape[1] + length)
            by_logits = LOGITS_AT_ONCE // (logits.shape[-1] * (length - 1))
            most = max(1, min(by_cache, by_logits) // len(numbers))
            for columns in (group[start : start + most] for start in range(0, len(group), most)):
                answers = np.tile([candidates[n] for n in columns], (len(numbers), 1)).astype(np.int64)
                found, _ = backend.forward(answers[:, :-1], past, length - 1, copies=len(columns))
                likely = log_softmax(found[:, 1 - length :])
                following = np.take_along_axis(likely, answers[:, 1:, None], -1)[..., 0].sum(-1)
                scores[np.ix_(numbers, columns)] += following.reshape(len(numbers), -1)
    return scores


def reference_nll(backend: Backend, rows: Rows, candidates: list[np.ndarray], scores: np.ndarray) -> np.ndarray:
    """Return what ``answer_nll`` does, but take the likelihood of an answer that is a candidate from its score."""
    columns = {tuple(candidate.tolist()): column for column, candidate in enumerate(candidates)}
    found = np.full(len(rows), np.nan)
    for number, prompt in enumerate(rows.prompts):
        answer = tuple(rows.ids[number][len(prompt) :].tolist())
        if len(prompt) and answer in columns and rows.answer_tokens([number]) == len(answer):
            found[number] = -scores[number, columns[answer]]
    rest = np.flatnonzero(np.isnan(found))
    found[rest] = answer_nll(backend, Rows([rows.ids[n] for n in rest], [rows.answers[n] for n in rest]))
    return found


def padded(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of token ids padded on the left, and their mask: both (rows, longest), int64."""
    longest = max(map(len, rows))
    ids, mask = np.zeros((2, len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :], mask[number, longest - len(row) :] = row, 1
    return ids, mask


def by_length(
    rows: list[np.ndarray], tokens: int, extra_tokens: int = 0, context: float = math.inf
) -> Iterator[list[int]]:
    """Yield batches of row numbers by length, of at most ``tokens`` tokens or one row.

    ``extra_tokens`` are added to each row; if it is then longer than the ``context``, it has a batch of its own.
    """
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number])):
        length = len(rows[number]) + extra_tokens
        if batch and (length > context or (len(batch) + 1) * length > tokens):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def answer_nll(backend: Backend, rows: Rows) -> np.ndarray:
    """Return the negative log-likelihood of each row's answers in nats, given what precedes them: (rows,)."""
    found = np.zeros(len(rows))
    for numbers in by_length(rows.ids, TOKENS_AT_ONCE):
        ids, mask = padded([rows.ids[n] for n in numbers])
        counted, _ = padded([rows.answers[n] for n in numbers])
        counted[:, 0] = 0
        counted[np.arange(len(numbers)), (mask == 0).sum(1)] = 0
        first = int(counted.any(0).argmax())
        keep = ids.shape[1] - first + 1
        logits = backend.forward(ids, None, keep, mask)[0][:, -keep:-1]
        for row, number in enumerate(numbers):
            # One row at a time: in float64, all of a batch would take gigabytes for a large vocabulary.
            at = np.flatnonzero(counted[row, first:])
            likely = log_softmax(logits[row, at])
            found[number] = -likely[np.arange(len(at)), ids[row, first + at]].sum()
    return found


def generate(
    backend: Backend, prompts: list[np.ndarray], ends: set[int], new_tokens: int
) -> list[tuple[list[int], bool]]:
    """Return greedy answers within the model's context: token ids without the end token, and whether there was one."""
    context = getattr(backend, "context", math.inf)
    answers: list[tuple[list[int], bool]] = [([], False)] * len(prompts)
    for numbers in by_length(prompts, 4 * TOKENS_AT_ONCE, new_tokens, context):
        ids, mask = padded([prompts[n] for n in numbers])
        most = min(new_tokens, context - ids.shape[1])
        past, made = None, np.zeros((len(numbers), 0), dtype=np.int64)
        ended = np.zeros(len(numbers), dtype=bool)
        while made.shape[1] < most and not ended.all():
            logits, past = backend.forward(ids, past, 1, mask)
            ids = logits[:, -1].argmax(-1).astype(np.int64)[:, None]
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
            made = np.concatenate([made, ids], axis=1)
            ended |= np.isin(ids[:, 0], list(ends))
        for number, row in zip(numbers, made.tolist(), strict=True):
            stop = next((i for i, token in enumerate(row) if token in ends), None)
            answers[number] = (row[:stop], stop is not None)
    return answers


def probe_logits(backend: Backend, rows: list[np.ndarray], positions: int) -> np.ndarray:
    """Return the logits of the last ``positions`` positions of each row: (rows * positions, vocabulary)."""
    return np.concatenate(
        [backend.forward(row[None].astype(np.int64), None, positions)[0][0, -positions:] for row in rows]
    )


def fit_probe(probe: dict[str, int], vocabulary: int) -> tuple[int, int]:
    """Return how many rows, and positions of each, fit into PROBE_BYTES: positions are cut first, then rows.

    Rows are what the parity check resamples; the logits stay fp32, because budgets go down to 1e-3.
    """
    most = max(1, PROBE_BYTES // (4 * vocabulary))
    rows = min(probe["rows"], most)
    return rows, min(probe["positions"], most // rows)


def run_probe(backend: Backend, rows: Rows, probe: dict[str, int]) -> dict[str, np.ndarray]:
    """Run the parity probe: the last ``positions`` positions of each of the first ``rows`` rows, as far as they fit.

    Returns:
        ``logits`` (all positions, vocabulary; float32) and ``positions`` (rows; int64), how many each row has.
    """
    vocabulary = backend.forward(rows.ids[0][None, :1].astype(np.int64), None, 1)[0].shape[-1]
    count, positions = fit_probe(probe, vocabulary)
    chosen = rows.ids[:count]
    lengths = np.array([min(positions, len(row)) for row in chosen], dtype=np.int64)
    return {"logits": probe_logits(backend, chosen, positions), "positions": lengths}


def write_probe(path: Path, backend: Backend, rows: Rows, probe: dict[str, int]) -> None:
    """Write what ``run_probe`` returns as safetensors."""
    with written_whole(path) as aside:
        save_file(run_probe(backend, rows, probe), aside)
