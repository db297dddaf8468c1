"""Deterministic decoding and scoring with any backend."""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from snaketune.data.tokens import Rows

TOKENS_AT_ONCE = 2048
# 64 MB in fp32: for a large vocabulary, less fits than the tokens would allow.
LOGITS_AT_ONCE = 16_000_000
# To copy a cache of fewer tokens costs about what computing them again does.
LEAST_SHARED = 8


class Backend(Protocol):
    """A causal language model that keeps a cache of past keys and values.

    Rows of at most ``shares_within`` tokens can go on from a repeated past, with padding between it and them: a sliding
    window would count the padding too. ``pads`` is false where rows of a batch must have one length: a model with a window
    that starts from a trained prefix, or one that rounds activations by a scale for the whole batch.
    """

    shares_within: float
    pads: bool

    def forward(self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        """Run ids (rows, length; int64) after ``past`` (None at first), which can't be used again.

        ``mask`` (rows, past and ids; int64) is 0 where a row is padded on the left.

        Returns the logits of at least the last ``keep`` positions, (rows, >= keep, vocabulary),
        and the longer past.
        """
        ...

    def branch(self, ids: np.ndarray, past: Any, mask: np.ndarray | None = None) -> np.ndarray:
        """Run ids (rows of past * copies, length; int64) after ``past``, which stays as it is.

        ``mask`` (rows of past, past; int64) is 0 where past is padded.

        Returns the logits of all ids, (rows of past * copies, length, vocabulary).
        """
        ...

    def repeat(self, past: Any, rows: int) -> Any:
        """Return the past of one row as that of so many."""
        ...


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def shares_within(config: dict[str, Any]) -> float:
    """Return ``Backend.shares_within`` for a model's configuration as transformers writes it."""
    config = {**config, **(config.get("text_config") or {})}
    return config.get("sliding_window") or math.inf


class SharedPromptBackend:
    """A Backend whose rows all go on from a prompt that another one has read."""

    shares_within: float = 0
    pads = True

    def __init__(self, backend: Backend, prompt: np.ndarray):
        self.backend, self.tokens = backend, len(prompt)
        self.past = backend.forward(prompt[None].astype(np.int64), None, 1)[1]

    def _whole(self, mask: np.ndarray | None) -> np.ndarray | None:
        return None if mask is None else np.pad(mask, ((0, 0), (self.tokens, 0)), constant_values=1)

    def forward(self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        past = self.repeat(self.past, len(ids)) if past is None else past
        return self.backend.forward(ids, past, keep, self._whole(mask))

    def branch(self, ids: np.ndarray, past: Any, mask: np.ndarray | None = None) -> np.ndarray:
        return self.backend.branch(ids, past, self._whole(mask))

    def repeat(self, past: Any, rows: int) -> Any:
        return self.backend.repeat(past, rows)


def read_shared(backend: Backend, prompts: list[np.ndarray], longest: int) -> tuple[Backend, int]:
    """Return a backend that has read the tokens with which all prompts begin, and how many; at least one of each is left.

    ``longest`` is the length of the longest row, with what follows its prompt. Where sharing isn't possible or doesn't
    pay, no token is shared.
    """
    least = min(map(len, prompts), default=0)
    if len(prompts) < 2 or least <= LEAST_SHARED or longest > backend.shares_within:
        return backend, 0
    starts = np.stack([prompt[: least - 1] for prompt in prompts])
    alike = np.append((starts == starts[0]).all(0), False)
    shared = int(alike.argmin())
    return (SharedPromptBackend(backend, prompts[0][:shared]), shared) if shared >= LEAST_SHARED else (backend, 0)


def candidate_likelihoods(backend: Backend, prompts: list[np.ndarray], candidates: list[np.ndarray]) -> np.ndarray:
    """Return the log-likelihood in nats of each candidate answer after each prompt: (prompts, candidates).

    What all prompts begin with is read once, and the rest of a prompt too; candidates of one length are scored
    together after it.
    """
    scores = np.zeros((len(prompts), len(candidates)))
    lengths = [len(candidate) for candidate in candidates]
    backend, shared = read_shared(backend, prompts, max(map(len, prompts), default=0) + max(lengths))
    for numbers in by_length(prompts, TOKENS_AT_ONCE, backend.pads):
        ids, mask = padded([prompts[n][shared:] for n in numbers])
        logits, past = backend.forward(ids, None, 1, mask)
        scores[numbers] = log_softmax(logits[:, -1])[:, [candidate[0] for candidate in candidates]]
        for length in sorted({*lengths} - {1}):
            group = [n for n in range(len(candidates)) if lengths[n] == length]
            by_cache = 4 * TOKENS_AT_ONCE // (shared + ids.shape[1] + length)
            by_logits = LOGITS_AT_ONCE // (logits.shape[-1] * (length - 1))
            most = max(1, min(by_cache, by_logits) // len(numbers))
            for columns in (group[start : start + most] for start in range(0, len(group), most)):
                answers = np.tile([candidates[n] for n in columns], (len(numbers), 1)).astype(np.int64)
                likely = log_softmax(backend.branch(answers[:, :-1], past, mask))
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
    rows: list[np.ndarray], tokens: int, pads: bool, extra_tokens: int = 0, context: float = math.inf
) -> Iterator[list[int]]:
    """Yield batches of row numbers by length, of at most ``tokens`` tokens or one row, and of one length unless it ``pads``.

    ``extra_tokens`` are added to each row; if it is then longer than the ``context``, it has a batch of its own.
    """
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number])):
        length = len(rows[number]) + extra_tokens
        longer = batch and len(rows[number]) > len(rows[batch[-1]]) and not pads
        if batch and (longer or length > context or (len(batch) + 1) * length > tokens):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def answer_nll(backend: Backend, rows: Rows) -> np.ndarray:
    """Return the negative log-likelihood of each row's answers in nats, given what precedes them: (rows,)."""
    found = np.zeros(len(rows))
    # The last token before an answer isn't shared: its logits are needed.
    asked = [ids[: int(answers.argmax())] for ids, answers in zip(rows.ids, rows.answers, strict=True)]
    backend, shared = read_shared(backend, asked, max(map(len, rows.ids), default=0))
    for numbers in by_length(rows.ids, TOKENS_AT_ONCE, backend.pads):
        ids, mask = padded([rows.ids[n][shared:] for n in numbers])
        counted, _ = padded([rows.answers[n][shared:] for n in numbers])
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
    backend, shared = read_shared(backend, prompts, max(map(len, prompts), default=0) + new_tokens)
    for numbers in by_length(prompts, 4 * TOKENS_AT_ONCE, backend.pads, new_tokens, context):
        ids, mask = padded([prompts[n][shared:] for n in numbers])
        most = min(new_tokens, context - shared - ids.shape[1])
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
