"""Scores of candidate answers equal those that one gets without cache and batches."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax as reference

from snaketune.scoring import BATCH_ROWS, candidate_likelihoods, equal_lengths, log_softmax, probe_logits

VOCABULARY = 11
TABLE = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6).map(np.array)


class SumBackend:
    """The next token depends on the sum of all tokens so far, so a lost past is seen."""

    def forward(self, ids: np.ndarray, past: Any, keep: int) -> tuple[np.ndarray, Any]:
        sums = ids.cumsum(1) + (0 if past is None else past)
        return TABLE[sums % VOCABULARY][:, -keep:], sums[:, -1:]


def likelihood(prompt: np.ndarray, answer: np.ndarray) -> float:
    whole = np.concatenate([prompt, answer])
    return sum(reference(TABLE[whole[:i].sum() % VOCABULARY])[whole[i]] for i in range(len(prompt), len(whole)))


@given(st.lists(TOKENS, min_size=1, max_size=8), st.lists(TOKENS, min_size=1, max_size=4))
def test_likelihoods_equal_those_of_one_row_at_a_time(prompts: list[np.ndarray], candidates: list[np.ndarray]) -> None:
    expected = [[likelihood(prompt, candidate) for candidate in candidates] for prompt in prompts]
    np.testing.assert_allclose(candidate_likelihoods(SumBackend(), prompts, candidates), expected, rtol=1e-12)


def test_likelihoods_of_more_rows_than_a_batch_stay_in_order() -> None:
    prompts = [np.array([n % VOCABULARY] * (1 + n % 2)) for n in range(3 * BATCH_ROWS)]
    found = candidate_likelihoods(SumBackend(), prompts, [np.array([3, 4])])
    np.testing.assert_allclose(found[:, 0], [likelihood(prompt, np.array([3, 4])) for prompt in prompts])


@given(st.lists(st.integers(1, 4), max_size=150))
def test_batches_hold_every_row_once_and_one_length_each(lengths: list[int]) -> None:
    batches = list(equal_lengths([np.zeros(length) for length in lengths]))
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    assert all(len({lengths[n] for n in batch}) == 1 and len(batch) <= BATCH_ROWS for batch in batches)


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_log_softmax_equals_scipys(logits: list[list[float]]) -> None:
    array = np.array(logits, dtype=np.float32)
    np.testing.assert_allclose(log_softmax(array), reference(array.astype(np.float64), axis=-1), atol=1e-9)


def test_the_probe_takes_the_last_positions_of_each_row() -> None:
    rows = [np.array([1, 2, 3]), np.array([4, 5])]
    np.testing.assert_array_equal(probe_logits(SumBackend(), rows, 2), TABLE[[3, 6, 4, 9]])
