"""Training: data order, loss, learning rate, and going on after an interruption."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_phi3
from support.training_runs import killed
from transformers import Phi3ForCausalLM

from snaketune.core.errors import UserError
from snaketune.data.tokens import Rows
from snaketune.training.batches import IGNORED, collate, plan_batches, portions, tokens_of
from snaketune.training.checkpoints import STOP_SIGNALS, Checkpoints, stop_notice
from snaketune.training.loop import TrainingLoop
from snaketune.training.loss import answer_loss, mean_loss
from snaketune.training.memory import limit_threads
from snaketune.training.schedule import Plan

CPU = torch.device("cpu")


def test_cores_are_counted_where_processes_have_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(UserError, match="needs 2 threads, but may use 1 cores"):
        limit_threads(2)


GENERATOR = np.random.default_rng(0)


def rows_of(lengths: list[int]) -> Rows:
    ids = [GENERATOR.integers(3, 64, length).astype(np.int32) for length in lengths]
    return Rows(ids, [np.arange(length) >= GENERATOR.integers(1, length) for length in lengths])


def tiny_model(dropout: float = 0.0) -> Phi3ForCausalLM:
    return tiny_phi3(64, attention_dropout=dropout, resid_pdrop=dropout)


def plan(batches: list[list[int]], **other: float) -> Plan:
    values = {"micro_batch_rows": 4, "learning_rate": 0.01, "warmup_share": 0.1, "max_grad_norm": 1.0}
    return Plan(batches, **(values | {"checkpoint_steps": 2} | other))


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 3), st.integers(1, 1000))
def test_each_row_comes_once_in_each_epoch(count: int, batch_rows: int, epochs: int, seed: int) -> None:
    rows = Rows([np.zeros(1 + n % 7) for n in range(count)], [np.arange(1 + n % 7) >= 1 for n in range(count)])
    batches = plan_batches(rows, batch_rows, epochs, seed)
    steps = -(-count // batch_rows)
    assert len(batches) == steps * epochs
    assert max(map(len, batches)) <= batch_rows
    for epoch in range(epochs):
        seen = [row for batch in batches[epoch * steps : (epoch + 1) * steps] for row in batch]
        assert sorted(seen) == list(range(count))


def test_the_seed_alone_makes_the_order() -> None:
    rows = rows_of([int(length) for length in GENERATOR.integers(2, 40, 100)])
    assert plan_batches(rows, 8, 2, 1) == plan_batches(rows, 8, 2, 1)
    assert plan_batches(rows, 8, 2, 1) != plan_batches(rows, 8, 2, 2)
    one, other = np.array_split(np.array(plan_batches(rows_of([5] * 96), 8, 2, 1)), 2)
    assert one.tolist() != other.tolist()


def test_rows_of_a_batch_have_like_lengths() -> None:
    rows = rows_of([int(length) for length in GENERATOR.integers(2, 102, 512)])
    lengths = [[len(rows.ids[row]) for row in batch] for batch in plan_batches(rows, 4, 1, 1)]
    assert np.mean([max(batch) - min(batch) for batch in lengths]) < 10


def test_rows_are_aligned_to_the_right() -> None:
    rows = Rows([np.array([5, 6, 7]), np.array([8, 9, 10, 11, 12])], [np.arange(n) >= 2 for n in (3, 5)])
    inputs, targets = collate(rows, [0, 1], 0, CPU)
    assert inputs["input_ids"].tolist() == [[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]]
    assert inputs["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert inputs["position_ids"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert targets.tolist() == [[IGNORED, IGNORED, 7], [10, 11, 12]]
    assert inputs["logits_to_keep"] == 4


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 8))
def test_ranks_share_a_batch_in_equally_many_micro_batches(count: int, world: int, rows: int) -> None:
    same = rows_of([2] * count)
    found = portions(list(range(count)), same, world, rows, math.inf)
    assert len({len(one) for one in found}) == 1
    assert max(len(part) for one in found for part, _ in one) <= rows
    counted = [row for one in found for part, weight in one for row in part if weight == 1]
    assert sorted(counted) == list(range(count))
    assert all(part for one in found for part, _ in one)


def reference_loss(model: Phi3ForCausalLM, rows: Rows) -> float:
    """One row at a time, without padding, over all of its logits."""
    total = 0.0
    for ids, answers in zip(rows.ids, rows.answers, strict=True):
        row = torch.from_numpy(ids.astype(np.int64))
        logits = model(input_ids=row[None]).logits[0]
        told = torch.from_numpy(answers[1:])
        total += float(torch.nn.functional.cross_entropy(logits[:-1][told], row[1:][told], reduction="sum"))
    return total


@torch.no_grad()
@pytest.mark.parametrize(
    "answers",
    [None, lambda n: n >= 0, lambda n: n >= 1, lambda n: n % 4 == 1],
    ids=["the last answer", "all tokens", "all but the first", "several answers"],
)
def test_the_loss_of_a_padded_batch_equals_that_of_its_rows(answers: Any) -> None:
    model, rows = tiny_model().eval(), rows_of([3, 9, 2, 17, 9])
    if answers is not None:
        rows = Rows(rows.ids, [answers(np.arange(len(ids))) for ids in rows.ids])
    numbers = list(range(len(rows)))
    expected = reference_loss(model, rows)
    assert float(answer_loss(model, *collate(rows, numbers, 0, CPU))) == pytest.approx(expected, rel=1e-5)
    assert mean_loss(model, rows, 0, CPU, 2) == pytest.approx(expected / rows.answer_tokens(numbers), rel=1e-5)


@given(st.integers(2, 1000), st.floats(0, 0.9))
def test_the_learning_rate_rises_then_falls_to_no_less_than_a_tenth(steps: int, warmup_share: float) -> None:
    rates = np.array([plan([[0]] * steps, warmup_share=warmup_share).rate(step) for step in range(steps)])
    top = max(1, round(warmup_share * steps))
    assert (np.diff(rates[:top]) > 0).all()
    assert (np.diff(rates[top - 1 :]) < 1e-12).all()
    assert rates.max() == pytest.approx(0.01)
    assert rates[top - 1 :].min() > 0.001 - 1e-12
    assert steps < 100 + top or rates[-1] == pytest.approx(0.001, rel=0.01)


ROWS = rows_of([4, 9, 7, 12, 5, 8, 6, 10] * 2)
BATCHES = plan_batches(ROWS, 4, 2, 1)


def fit(work: Path, dropout: float = 0.1, key: str = "recipe", **other: float) -> TrainingLoop:
    """What train.py sets up anew in each process."""
    accelerator = Accelerator(cpu=True)
    model = tiny_model(dropout).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    return TrainingLoop(
        accelerator, model, optimizer, ROWS, 0, plan(BATCHES, **other), Checkpoints(accelerator, work, key), "run"
    )


def weights(run: TrainingLoop) -> dict[str, torch.Tensor]:
    return run.accelerator.unwrap_model(run.model).state_dict()


def assert_equal_weights(one: TrainingLoop, other: TrainingLoop) -> None:
    assert [name for name, tensor in weights(one).items() if not torch.equal(tensor, weights(other)[name])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainingLoop:
    run = fit(tmp_path_factory.mktemp("whole"))
    run.run()
    return run


def test_training_lowers_the_loss(whole: TrainingLoop) -> None:
    losses = [entry["loss"] for entry in whole.log]
    assert len(losses) == len(BATCHES) == 8
    assert np.mean(losses[4:]) < np.mean(losses[:4])
    assert whole.log[-1]["tokens"] == 2 * ROWS.tokens(list(range(len(ROWS))))
    assert whole.log[-1]["computed_tokens"] == sum(tokens_of(batch, ROWS, False) for batch in BATCHES)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_run_ends_with_the_same_bits(step: int, whole: TrainingLoop, tmp_path: Path) -> None:
    killed(fit(tmp_path), step)
    state = json.loads(next(tmp_path.glob("checkpoint-*/state.json")).read_text()) if step > 1 else None
    resumed, tracker = fit(tmp_path), Mock()
    resumed.accelerator.trackers = [tracker]
    resumed.run()
    assert_equal_weights(resumed, whole)
    told = [(call.kwargs["step"], call.args[0]["loss"]) for call in tracker.log.call_args_list]
    assert told == [(entry["step"], entry["loss"]) for entry in whole.log]
    assert resumed.log == whole.log
    if state:
        assert resumed.seconds > state["seconds"] > 0
        assert resumed.earlier_peak == state["peaks"][0] > 0


def test_the_seconds_of_a_run_are_those_of_its_steps(tmp_path: Path) -> None:
    run, started = fit(tmp_path, checkpoint_steps=100), time.perf_counter()
    run.run(lambda: time.sleep(0.05) or 1.0, 1)
    assert 0 < run.seconds < time.perf_counter() - started - 0.05 * len(BATCHES)


def test_a_checkpoint_of_another_recipe_is_left_alone(whole: TrainingLoop, tmp_path: Path) -> None:
    killed(fit(tmp_path, key="another recipe", learning_rate=0.5), 3)
    assert list(tmp_path.glob("checkpoint-*"))
    anew = fit(tmp_path)
    anew.run()
    assert_equal_weights(anew, whole)


def test_a_checkpoint_that_was_cut_short_is_not_used(whole: TrainingLoop, tmp_path: Path) -> None:
    killed(fit(tmp_path), 5)
    (tmp_path / "part-0000006").mkdir()
    resumed = fit(tmp_path)
    resumed.run()
    assert_equal_weights(resumed, whole)


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def warning(number: signal.Signals) -> Callable[[], float]:
    return lambda: signal.raise_signal(number) or 0.0


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=str)
def test_a_run_asked_to_end_saves_the_step_it_is_in(
    number: signal.Signals, whole: TrainingLoop, tmp_path: Path
) -> None:
    told = fit(tmp_path, checkpoint_steps=100)
    told.interrupted = stop_notice()
    with pytest.raises(UserError, match=r"run: stopped by a signal after step 3 of 8; the checkpoint is in"):
        told.run(warning(number), 3)
    assert [path.parent.name for path in tmp_path.glob("checkpoint-*/state.json")] == ["checkpoint-0000003"]
    resumed = fit(tmp_path)
    resumed.run()
    assert_equal_weights(resumed, whole)


@pytest.mark.usefixtures("handlers")
def test_a_run_asked_to_end_in_its_last_step_ends(whole: TrainingLoop, tmp_path: Path) -> None:
    told = fit(tmp_path)
    told.interrupted = stop_notice()
    told.run(warning(signal.SIGTERM), 8)
    assert_equal_weights(told, whole)


@pytest.mark.parametrize(
    ("step", "words", "kept"),
    [
        (3, r"run: loss is nan at step 4 of 8; .*checkpoint-0000002; lower learning_rate", 2),
        (1, "at step 2 of 8; there is no checkpoint yet", 0),
    ],
)
def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_checkpoint(
    step: int, words: str, kept: int, tmp_path: Path
) -> None:
    run = fit(tmp_path)

    def poison() -> float:
        with torch.no_grad():
            next(run.model.parameters()).fill_(torch.nan)
        return 0.0

    with pytest.raises(UserError, match=words):
        run.run(poison, step)
    good = fit(tmp_path)
    assert good._resume() == kept
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(good).values())


def test_rows_in_memory_at_once_do_not_change_the_result(tmp_path: Path) -> None:
    one, four = fit(tmp_path / "1", dropout=0, micro_batch_rows=1), fit(tmp_path / "4", dropout=0, micro_batch_rows=4)
    for run in (one, four):
        run.run()
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(four)[name], rtol=1e-3, atol=1e-4)
