"""A prompt that test rows share is read once, and answers are as if each row were read alone."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import SIZES, tiny_phi3
from transformers import AutoConfig, AutoModelForCausalLM

from snaketune.data.tokens import Rows
from snaketune.inference import decoding
from snaketune.inference.decoding import answer_nll, candidate_likelihoods, generate
from snaketune.inference.torch_backend import TorchBackend
from snaketune.training.prefix import write_prefix

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW = {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {}, "phi3": {}, "qwen3": {}, "gemma3_text": WINDOW, "gemma3_text, wide": WINDOW | {"sliding_window": 64},
    "mistral": {"sliding_window": 12}, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip
CANDIDATES = [np.array([7]), np.array([7, 9, 20]), np.array([60, 4]), np.array([60, 5])]


def rows_of(shared: int, sizes: list[int], vocabulary: int = 64) -> Rows:
    draw = np.random.default_rng(2)
    start, *rest = (draw.integers(3, vocabulary, size).astype(np.int32) for size in (shared, *sizes))
    ids = [np.concatenate([start, own]) for own in rest]
    return Rows(ids, [np.arange(len(row)) >= len(row) - 3 for row in ids])


ROWS = rows_of(10, [9, 5, 5, 14, 21])


def answers(backend: Any, rows: Rows, least: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return what an evaluation computes, with prompts of so many tokens shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "LEAST_SHARED", least)
        return (
            candidate_likelihoods(backend, rows.prompts, CANDIDATES),
            answer_nll(backend, rows),
            generate(backend, rows.prompts, {4}, 12),
        )


@pytest.mark.parametrize("prefix", [False, True], ids=["", "trained prefix"])
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_that_share_a_prompt_are_answered_as_alone(name: str, prefix: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = AutoConfig.for_model(name.partition(",")[0], **SIZES | FAMILIES[name])
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        weight.data *= 4 if weight.dim() > 1 else 1  # so that a token isn't decided by a hair
    layers = [np.random.default_rng(3).normal(size=(2, 4 if name == "gpt2" else 2, 3, 8)).astype(np.float32)] * 2
    write_prefix(tmp_path / "prefix.safetensors", [(one[0], one[1]) for one in layers])
    backend = TorchBackend(model, tmp_path / "prefix.safetensors" if prefix else None)
    alone = [answers(backend, Rows(ROWS.ids[n : n + 1], ROWS.answers[n : n + 1]), 1) for n in range(len(ROWS))]
    second = [np.append(prompt, CANDIDATES[1])[None].astype(np.int64) for prompt in ROWS.prompts]
    logits = [backend.forward(ids, None, 4)[0][0, -4:-1] for ids in second]
    for least, plain in ((1, False), (10**9, False), (1, True)):
        if plain:  # evaluation.share_prompts: false
            backend.shares_within, backend.pads = 0, False
        scores, likely, made = answers(backend, ROWS, least)
        np.testing.assert_allclose(scores, np.concatenate([one[0] for one in alone]), atol=1e-4)
        np.testing.assert_allclose(likely, np.concatenate([one[1] for one in alone]), atol=1e-4)
        assert made == [one[2][0] for one in alone]
    whole = [decoding.log_softmax(one)[[0, 1, 2], CANDIDATES[1]].sum() for one in logits]
    np.testing.assert_allclose(scores[:, 1], whole, atol=1e-4)


def test_it_pays() -> None:
    """Forty tokens of fifty are shared: a third of the tokens, and measured a third of the time."""
    backend, rows = TorchBackend(tiny_phi3(64, hidden_size=128, intermediate_size=256)), rows_of(40, [9, 10, 11] * 20)
    times: dict[int, list[float]] = {1: [], 10**9: []}
    for least in [*times] * 3:
        started = time.process_time()
        answers(backend, rows, least)
        times[least].append(time.process_time() - started)
    assert min(times[1]) < 0.8 * min(times[10**9])
