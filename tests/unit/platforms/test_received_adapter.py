"""An adapter that was trained elsewhere is taken only for the run and the base that asked for it."""

from pathlib import Path

import pytest
import torch

from receive_adapter import check_configuration, check_weights
from snaketune.core.errors import UserError

OPTIONS = {"r": 2, "lora_alpha": 4.0, "target_modules": ["q"], "use_dora": True, "use_rslora": False}
CONFIGURATION = {**OPTIONS, "peft_type": "LORA", "base_model_name_or_path": "/workspace/weights"}
BASE = {"a.q": (6, 4), "a.k": (6, 4)}
A, B, MAGNITUDE = (f"base_model.model.a.q.lora_{name}" for name in ("A.weight", "B.weight", "magnitude_vector"))
WEIGHTS = {A: torch.zeros(2, 4), B: torch.zeros(6, 2), MAGNITUDE: torch.zeros(6)}


def test_the_adapter_of_a_run_is_taken() -> None:
    check_configuration(CONFIGURATION, {"options": OPTIONS, "hub": "owner/model"}, Path("x"))
    other_release = {A: WEIGHTS[A], B: WEIGHTS[B], f"{MAGNITUDE}.weight": torch.zeros(6, 1)}
    for weights in (WEIGHTS, other_release):
        check_weights(weights, BASE, OPTIONS, Path("x"))


@pytest.mark.parametrize(
    "changed", [{"r": 3}, {"target_modules": ["q", "k"]}, {"peft_type": "IA3"}, {"base_model_name_or_path": "o/other"}]
)
def test_the_configuration_of_another_run_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"x: (r|target_modules|peft_type|its base) is "):
        check_configuration({**CONFIGURATION, **changed}, {"options": OPTIONS, "hub": "owner/model"}, Path("x"))


@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        (A, torch.zeros(2, 5), r"lora_A is \(2, 5\), but \(2, 4\) in an adapter of this base"),
        (MAGNITUDE, torch.zeros(5), r"is \(5,\), but \(6,\)"),
        ("base_model.model.a.k.lora_A.weight", torch.zeros(2, 4), r"a.k.lora_A is \(2, 4\), but missing"),
        (B, torch.full((6, 2), torch.nan), "values that aren't finite"),
    ],
)
def test_weights_of_another_base_are_refused(name: str, tensor: torch.Tensor, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_weights({**WEIGHTS, name: tensor}, BASE, OPTIONS, Path("x"))
