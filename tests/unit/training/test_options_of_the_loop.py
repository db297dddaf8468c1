"""Schedules, groups of the optimizer, noise, smoothing, early stopping and the best checkpoint: each by its arithmetic."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from peft import IA3Config, LoraConfig, get_peft_model
from support.models import tiny_phi3
from support.training_runs import recipe_of, rows_to_learn
from transformers import get_scheduler
from transformers.integrations import activate_neftune
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType

from snaketune.config.technique import SCHEDULES, Technique
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.training.batches import IGNORED, collate
from snaketune.training.checkpoints import Checkpoints
from snaketune.training.engines import groups_of, optimizer_for
from snaketune.training.loop import TrainingLoop
from snaketune.training.loss import answer_loss
from snaketune.training.schedule import Plan
from snaketune.training.shared_prompts import obstacle
from train import plan_of

CPU, ROWS = torch.device("cpu"), rows_to_learn(16, 1, shared=(42, 43, 44))
pytestmark = pytest.mark.usefixtures("one_thread")


def plan(steps: int, **other: Any) -> Plan:
    values = {"micro_batch_rows": 4, "learning_rate": 0.01, "warmup_share": 0.25, "max_grad_norm": 1.0}
    return Plan([[0, 1, 2, 3]] * steps, **(values | {"checkpoint_steps": 100} | other))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_transformers_own_of_that_name(name: str) -> None:
    known = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]).parameters
    given = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    assert set(known) - given == SCHEDULES[name]
    values = {"num_cycles": 2.0, "power": 2.0, "lr_end": 0.001, "timescale": 3.0, "min_lr_rate": 0.2}
    options = {key: values[key] for key in SCHEDULES[name] & values.keys()}
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    counts = {key: int(value) if value == int(value) else value for key, value in options.items()}
    theirs = get_scheduler(name, optimizer, 3, 12, counts)
    rates = []
    for _ in range(12):
        optimizer.step()
        theirs.step()
        rates.append(theirs.get_last_lr()[0])
    ours = plan(12, scheduler=name, options=options)
    assert [ours.rate(step) for step in range(12)] == pytest.approx(rates)
    assert ours.rate(0) > 0


def named(groups: list[dict[str, Any]], model: Any) -> dict[tuple[float, float], set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {(one["weight_decay"], one["rate"]): {names[p] for p in one["params"]} for one in groups}


def test_only_matrices_are_decayed() -> None:
    model = tiny_phi3(64)
    found = named(groups_of(model, recipe_of("full", weight_decay=0.1)), model)  # type: ignore[arg-type]
    assert found.keys() == {(0.1, 1.0), (0.0, 1.0)}
    assert all("norm" in name for name in found[0.0, 1.0])
    assert not any("norm" in name for name in found[0.1, 1.0])
    scaled = get_peft_model(model, IA3Config(target_modules=["o_proj"], feedforward_modules=[]))
    assert named(groups_of(scaled, recipe_of("peft-ia3", weight_decay=0.1)), scaled).keys() == {(0.0, 1.0)}  # type: ignore[arg-type]


def test_magnitudes_are_not_decayed_and_b_learns_faster_with_lora_plus() -> None:
    model = get_peft_model(tiny_phi3(64), LoraConfig(target_modules=["o_proj"], use_dora=True))
    recipe = recipe_of("dora", weight_decay=0.1, loraplus_lr_ratio=16.0)
    found = named(groups_of(model, recipe), model)  # type: ignore[arg-type]
    assert {key: {name.split(".")[-3] for name in names} for key, names in found.items()} == {
        (0.1, 1.0): {"lora_A"},
        (0.1, 16.0): {"lora_B"},
        (0.0, 1.0): {"lora_magnitude_vector"},
    }


def smoothed(logits: torch.Tensor, labels: list[int], smoothing: float) -> torch.Tensor:
    wanted = torch.tensor(labels)
    return torch.nn.functional.cross_entropy(
        logits, wanted, label_smoothing=smoothing, reduction="sum", ignore_index=IGNORED
    )


@pytest.mark.parametrize("shared", [True, False])
def test_smoothed_labels_are_torchs(shared: bool) -> None:
    model = tiny_phi3(64)
    expected = sum(
        smoothed(
            model(torch.tensor(ids[None], dtype=torch.int64)).logits[0, :-1],
            np.where(answers, ids, IGNORED)[1:].tolist(),
            0.2,
        )
        for ids, answers in zip(ROWS.ids, ROWS.answers, strict=True)
    )
    found = answer_loss(model, *collate(ROWS, list(range(len(ROWS))), 0, CPU, shared), smoothing=0.2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_noise_is_of_training_alone_and_as_large_as_asked_for() -> None:
    model = tiny_phi3(64, hidden_size=64)
    plain = model.get_input_embeddings()(torch.arange(32)[None]).detach()
    assert not obstacle(model, None)
    activate_neftune(model, 5.0)
    assert "neftune" in obstacle(model, True)
    noise = model.train().get_input_embeddings()(torch.arange(32)[None]) - plain
    largest = 5.0 / (32 * 64) ** 0.5
    assert 0.95 * largest < float(noise.detach().abs().max()) <= largest
    torch.testing.assert_close(model.eval().get_input_embeddings()(torch.arange(32)[None]), plain)


def fit(work: Path, steps: int = 12, **other: Any) -> TrainingLoop:
    torch.manual_seed(1)
    accelerator = Accelerator(cpu=True)
    made = tiny_phi3(64)
    model, optimizer = accelerator.prepare(made, optimizer_for(made, recipe_of("full")))  # type: ignore[arg-type]
    checkpoints = Checkpoints(accelerator, work, "recipe")
    return TrainingLoop(accelerator, model, optimizer, ROWS, 0, plan(steps), checkpoints, "run", **other)


def weights(run: TrainingLoop) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in run.model.state_dict().items()}


def test_the_best_weights_are_kept_and_a_run_that_gets_no_better_ends(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0, 4.0])
    stopped = fit(tmp_path / "stopped", keep_best=True, patience=2)
    stopped.run(lambda: next(losses), 2)
    assert len(stopped.log) == 8
    assert stopped.best == 4
    until = fit(tmp_path / "until", steps=12)
    until.interrupted = lambda: len(until.log) == 4
    with pytest.raises(UserError, match="after step 4"):
        until.run()
    for (name, one), other in zip(weights(stopped).items(), weights(until).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)


def test_a_run_killed_after_its_best_step_still_ends_with_it(tmp_path: Path) -> None:
    of = {2: 3.0, 4: 1.0, 6: 2.0, 8: 1.5, 10: 1.4, 12: 1.3}

    def run(interrupt: int | None) -> TrainingLoop:
        made = fit(tmp_path, keep_best=True)
        made.interrupted = lambda: len(made.log) == interrupt
        made.run(lambda: of[len(made.log) + 1], 2)
        return made

    with pytest.raises(UserError, match="after step 7"):
        run(7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0000004", "checkpoint-0000007"]
    resumed = run(None)
    whole = fit(tmp_path / "whole", keep_best=True)
    whole.run(lambda: of[len(whole.log) + 1], 2)
    assert resumed.best == whole.best == 4
    for one, other in zip(weights(resumed).values(), weights(whole).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_steps_may_be_counted_instead_of_epochs() -> None:
    recipe: Any = recipe_of("full", batch_rows=6, max_steps=7)
    assert plan_of(recipe, ROWS, 100).batches == plan_of({**recipe, "max_steps": 9}, ROWS, 100).batches[:7]
    assert len(plan_of(recipe, ROWS, 100).batches) == 7


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"power": 2}}, "linear has no options, not power"),
        ({"lr_scheduler_kwargs": {"power": 2}}, "without lr_scheduler_type"),
        ({"loraplus_lr_ratio": 16}, "needs an adapter of type: lora"),
        ({"neftune_noise_alpha": 5, "share_prompts": True}, "the same noise"),
    ],
)
def test_contradictory_keys_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validated(Technique, {"description": "", "learning_rate": 0.1, **keys}, "technique")
