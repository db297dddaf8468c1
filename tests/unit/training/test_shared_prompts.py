"""Rows that share what they begin with: as one sequence they have the loss and gradients of separate rows."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import SIZES
from transformers import AutoConfig, AutoModelForCausalLM

from snaketune.data.tokens import Rows
from snaketune.training import loss
from snaketune.training.adapters import attach
from snaketune.training.base_model import load_base
from snaketune.training.batches import collate, cut, tokens_of
from snaketune.training.loss import answer_loss, mean_loss
from snaketune.training.recomputation import recompute
from snaketune.training.shared_prompts import FAMILIES, LOOKUPS, obstacle, sequence_of

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
# Of a window shorter than the rows, where the family has one.
WINDOWS: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    **{family: {"sliding_window": 5} for family in ("phi3", "mistral", "mixtral", "starcoder2")},
    **{
        family: {
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention"],
        }
        for family in ("cohere2", "exaone4", "ministral", "olmo3", "qwen2", "qwen3", "smollm3")
    },
}


def model_of(family: str, **other: Any) -> Any:
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **SIZES | other)
    return AutoModelForCausalLM.from_config(config).train()


def rows_that_share() -> Rows:
    """A prompt of all rows, one of some of them, an answer that begins like another, a row twice and one of its own."""
    draw = np.random.default_rng(1)
    some = [draw.integers(3, 64, size).astype(np.int32) for size in (9, 6, 4, 11, 3, 1, 14)]
    all_, more, *own, alone = some
    ids = [np.concatenate(parts) for parts in ([all_, own[0]], [all_, more, own[1]], [all_, more, own[2]])]
    ids += [np.concatenate([all_, more, own[2], own[3]]), np.concatenate([all_, more]), ids[0], alone]
    answers = [np.arange(len(row)) >= len(row) - 5 for row in ids]
    answers[1][8:12] = True
    return Rows(ids, answers)


ROWS = rows_that_share()
NUMBERS = cut(list(range(len(ROWS))), ROWS, 16, 10**6, shared=True)[0]


def learned(model: Any, parts: list[list[int]], shared: bool) -> tuple[float, dict[str, torch.Tensor]]:
    total = sum(answer_loss(model, *collate(ROWS, part, 0, CPU, shared)) for part in parts)
    total.backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    return total.item(), gradients


def assert_as_alone(model: Any) -> None:
    assert "layout" in collate(ROWS, NUMBERS, 0, CPU, True)[0]
    expected, gradients = learned(model, [[number] for number in NUMBERS], False)
    found, shared = learned(model, [NUMBERS], True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert shared.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_loss_of_a_sequence_is_that_of_its_rows(family: str) -> None:
    for windows in ({}, WINDOWS[family]) if family in WINDOWS else ({},):
        model = model_of(family, **windows)
        assert model.config._attn_implementation == "sdpa"
        assert_as_alone(model)


LINEAR = {"target_modules": ["o_proj", "down_proj"]}
ADAPTERS: dict[str, Any] = {
    "lora": {"type": "lora", "options": {"r": 4, "init_lora_weights": False, **LINEAR}},
    "dora": {"type": "lora", "options": {"r": 4, "init_lora_weights": False, "use_dora": True, **LINEAR}},
    "ia3": {"type": "ia3", "options": {"feedforward_modules": ["down_proj"], **LINEAR}},
    "prefix": {"type": "prefix", "options": {"num_virtual_tokens": 3}},
    "long prefix": {"type": "prefix", "options": {"num_virtual_tokens": 8}},
}


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", ["phi3", "qwen3", "gemma3_text"])
def test_adapters_learn_from_a_sequence_what_they_do_from_rows(family: str, adapter: str) -> None:
    assert_as_alone(attach(model_of(family, **WINDOWS[family]), ADAPTERS[adapter]))


@pytest.mark.parametrize("kind", [True, "feed-forward"])
def test_blocks_can_be_computed_again(kind: Any) -> None:
    model = model_of("qwen3", **WINDOWS["qwen3"])
    expected = learned(model, [NUMBERS], True)
    recompute(model, kind)
    found = learned(model, [NUMBERS], True)
    assert found[0] == expected[0]
    assert all(torch.equal(found[1][name], one) for name, one in expected[1].items())


def test_products_in_bf16_are_as_good_as_of_padded_rows() -> None:
    """Each is rounded, so both are compared with fp32."""
    model = model_of("llama")
    exact = learned(model, [NUMBERS], False)[1]
    with torch.autocast("cpu", torch.bfloat16):
        found = [learned(model, [NUMBERS], shared)[1] for shared in (False, True)]
    padded, shared = (max(float((one[name] - exact[name]).norm()) for name in exact) for one in found)
    assert shared < 1.5 * padded


def test_a_loss_in_chunks_is_that_of_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 5 * 64)
    assert_as_alone(model_of("llama"))


def test_a_quantized_base_learns_from_a_sequence_what_it_does_from_rows(tmp_path: Path) -> None:
    model_of("llama", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(tmp_path)
    assert_as_alone(attach(load_base(tmp_path, "nf4").train(), ADAPTERS["lora"]))


def test_windows_count() -> None:
    for family, windows in WINDOWS.items():
        found = {learned(model_of(family, **other), [NUMBERS], True)[0] for other in ({}, windows)}
        assert len(found) == 2, family


def test_validation_is_that_of_padded_rows() -> None:
    model = model_of("llama")
    assert mean_loss(model, ROWS, 0, CPU, 3, 40, True) == pytest.approx(mean_loss(model, ROWS, 0, CPU), rel=1e-5)


@pytest.mark.parametrize(
    ("family", "other", "wanted", "words"),
    [
        ("llama", {}, None, ""),
        ("llama", {}, False, "share_prompts: false"),
        ("llama", {"attention_dropout": 0.1}, None, "dropout"),
        ("phi3", {"resid_pdrop": 0.1}, None, "dropout"),
        ("llama", {"attention_dropout": 0.1}, True, ""),
        ("gemma2", {}, True, "attention of gemma2"),
        ("gpt2", {}, None, "attention of gpt2"),
    ],
)
def test_what_pads_rows(family: str, other: dict[str, Any], wanted: bool | None, words: str) -> None:
    found = obstacle(model_of(family, **other), wanted)
    assert words in found
    assert bool(words) == bool(found)


def test_a_gpu_pads_rows_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "GPU" in obstacle(model_of("llama"), None)
    assert not obstacle(model_of("llama"), True)


def test_dropout_of_an_adapter_pads_rows() -> None:
    adapter: Any = {"type": "lora", "options": {"r": 4, "lora_dropout": 0.1, **LINEAR}}
    assert "dropout" in obstacle(attach(model_of("llama"), adapter), None)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=8), st.integers(1, 20))
def test_a_sequence_has_every_row_and_nothing_twice(drawn: list[list[int]], most: int) -> None:
    rows = Rows([np.array(one, dtype=np.int32) for one in drawn], [np.ones(len(one), dtype=bool) for one in drawn])
    parts = cut(list(range(len(rows))), rows, 4, most, shared=True)
    assert sorted(number for part in parts for number in part) == list(range(len(rows)))
    for part in parts:
        assert len(part) <= 4
        assert len(part) == 1 or tokens_of(part, rows, True) <= most >= tokens_of(part, rows, False) / LOOKUPS
        found = sequence_of([rows.ids[number] for number in part])
        for number, path in zip(part, found.paths, strict=True):
            assert found.ids[path].tolist() == drawn[number]
            assert found.positions[path].tolist() == list(range(len(path)))
        # One token for each beginning of a row.
        assert len(found.ids) == len(
            {tuple(drawn[number][: n + 1]) for number in part for n in range(len(drawn[number]))}
        )


def test_rows_that_share_too_little_are_padded() -> None:
    rows = Rows([np.arange(10) + 3 + 2 * (n > 0) for n in range(2)], [np.arange(10) > 7] * 2)
    assert "layout" not in collate(rows, [0, 1], 0, CPU, True)[0]
    assert tokens_of([0, 1], rows, True) == 20


def test_it_pays() -> None:
    """Forty tokens of fifty are shared: a third of the tokens, and measured half of the time."""
    model, prompt = model_of("phi3", hidden_size=128, intermediate_size=256), list(range(3, 43))
    ids = [np.asarray([*prompt, *range(n + 3, n + 13)], np.int32) for n in range(12)]
    rows, times = Rows(ids, [np.arange(50) >= 45] * 12), dict[bool, list[float]]()
    for shared in [False, True] * 4:
        batch, started = collate(rows, list(range(12)), 0, CPU, shared), time.process_time()
        answer_loss(model, *batch).backward()
        times.setdefault(shared, []).append(time.process_time() - started)
    assert min(times[True]) < 0.8 * min(times[False])
