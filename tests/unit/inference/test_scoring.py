"""Scores of candidate answers equal those that one gets without cache and batches."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax as reference
from support.backends import TABLE, VOCABULARY, SumBackend, without_model

from snaketune.data.tokens import Rows
from snaketune.inference import decoding
from snaketune.inference.decoding import (
    Backend,
    answer_nll,
    candidate_likelihoods,
    generate,
    log_softmax,
    reference_nll,
)
from snaketune.inference.probe import fit_probe, run_probe

START = st.lists(st.integers(0, VOCABULARY - 1), max_size=2).map(lambda ids: np.array(ids, dtype=int))
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6).map(np.array)
by_backend = pytest.mark.parametrize("backend", [SumBackend(), without_model()], ids=["sums", "genai"])


def likelihood(prompt: np.ndarray, answer: np.ndarray) -> float:
    whole = np.concatenate([prompt, answer])
    return sum(reference(TABLE[whole[:i].sum() % VOCABULARY])[whole[i]] for i in range(len(prompt), len(whole)))


@by_backend
@pytest.mark.parametrize("limit", ["TOKENS_AT_ONCE", "LOGITS_AT_ONCE"])
@given(
    prompts=st.lists(TOKENS, min_size=1, max_size=8),
    candidates=st.lists(TOKENS, min_size=1, max_size=6),
    at_once=st.integers(1, 200),
    start=START,
)
def test_likelihoods_equal_those_of_one_row_at_a_time(
    backend: Backend,
    limit: str,
    prompts: list[np.ndarray],
    candidates: list[np.ndarray],
    at_once: int,
    start: np.ndarray,
) -> None:
    prompts = [np.concatenate([start, prompt]) for prompt in prompts]
    expected = [[likelihood(prompt, candidate) for candidate in candidates] for prompt in prompts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, limit, at_once)
        patch.setattr(decoding, "LEAST_SHARED", 1)
        found = candidate_likelihoods(backend, prompts, candidates)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@by_backend
@given(
    parts=st.lists(st.tuples(TOKENS, TOKENS, TOKENS), min_size=1, max_size=8), at_once=st.integers(1, 30), start=START
)
def test_likelihoods_of_answers_equal_those_of_one_row_at_a_time(
    backend: Backend, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], at_once: int, start: np.ndarray
) -> None:
    """Rows of a prompt, an answer, another prompt: only the answer's tokens count."""
    parts = [(np.concatenate([start, prompt]), *rest) for prompt, *rest in parts]
    rows = Rows([np.concatenate(row) for row in parts], [])
    rows.answers.extend(np.repeat([False, True, False], [len(part) for part in row]) for row in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "TOKENS_AT_ONCE", at_once)
        patch.setattr(decoding, "LEAST_SHARED", 1)
        found = answer_nll(backend, rows)
    np.testing.assert_allclose(found, [-likelihood(prompt, answer) for prompt, answer, _ in parts], rtol=1e-12)


@given(st.lists(st.tuples(TOKENS, st.integers(0, 3)), min_size=1, max_size=8), st.integers(1, 30))
def test_the_likelihood_of_a_reference_is_its_score_or_else_computed(
    parts: list[tuple[np.ndarray, int]], at_once: int
) -> None:
    """The last of the answers is no candidate; an answer before the last counts too."""
    answers = [np.array([3]), np.array([3, 4]), np.array([5, 6]), np.array([7])]
    rows = Rows([np.concatenate([prompt, answers[n]]) for prompt, n in parts] + [np.array([1, 2, 9, 3])], [])
    rows.answers.extend(np.repeat([False, True], [len(prompt), len(answers[n])]) for prompt, n in parts)
    rows.answers.append(np.array([False, True, False, True]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "TOKENS_AT_ONCE", at_once)
        scores = candidate_likelihoods(SumBackend(), rows.prompts, answers[:3])
        found = reference_nll(SumBackend(), rows, answers[:3], scores)
    np.testing.assert_allclose(found, answer_nll(SumBackend(), rows), rtol=1e-12)


def test_the_first_token_of_a_row_has_no_likelihood() -> None:
    rows = Rows([np.array([3, 4, 5]), np.array([6, 7])], [np.ones(3, dtype=bool), np.ones(2, dtype=bool)])
    expected = [-likelihood(np.array([3]), np.array([4, 5])), -likelihood(np.array([6]), np.array([7]))]
    np.testing.assert_allclose(answer_nll(SumBackend(), rows), expected)
    assert [rows.answer_tokens([n]) for n in (0, 1)] == [2, 1]


def greedy(prompt: np.ndarray, ends: set[int], length: int) -> tuple[list[int], bool]:
    made: list[int] = []
    while len(made) < length:
        token = int(TABLE[(prompt.sum() + sum(made)) % VOCABULARY].argmax())
        if token in ends:
            return made, True
        made.append(token)
    return made, False


@by_backend
@given(
    prompts=st.lists(TOKENS, min_size=1, max_size=8),
    ends=st.sets(st.integers(0, VOCABULARY - 1), max_size=3),
    length=st.integers(1, 9),
    context=st.integers(9, 20),
    start=START,
)
def test_greedy_answers_equal_those_of_one_row_at_a_time_within_the_context(
    backend: Any, prompts: list[np.ndarray], ends: set[int], length: int, context: int, start: np.ndarray
) -> None:
    prompts = [np.concatenate([start, prompt]) for prompt in prompts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "context", context)
        patch.setattr(decoding, "TOKENS_AT_ONCE", 7)
        patch.setattr(decoding, "LEAST_SHARED", 1)
        found = generate(backend, prompts, ends, length)
    assert found == [greedy(prompt, ends, min(length, context - len(prompt))) for prompt in prompts]


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_log_softmax_equals_scipys(logits: list[list[float]]) -> None:
    array = np.array(logits, dtype=np.float32)
    np.testing.assert_allclose(log_softmax(array), reference(array.astype(np.float64), axis=-1), atol=1e-9)


def test_the_probe_takes_the_last_positions_of_each_row() -> None:
    rows = [np.array([1, 2, 3]), np.array([4, 5])]
    probed = run_probe(SumBackend(), Rows(rows, []), {"rows": 9, "positions": 2})
    np.testing.assert_array_equal(probed["logits"], TABLE[[3, 6, 4, 9]])
    assert probed["positions"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("vocabulary", "fitting"), [(2_000, (32, 16)), (49_152, (32, 2)), (128_256, (30, 1)), (200_064, (19, 1))]
)
def test_the_probe_of_a_large_vocabulary_has_fewer_positions_and_then_fewer_rows(
    vocabulary: int, fitting: tuple[int, int]
) -> None:
    assert fit_probe({"rows": 32, "positions": 16}, vocabulary) == fitting
    assert fitting[0] * fitting[1] * vocabulary * 4 < 16_000_000
