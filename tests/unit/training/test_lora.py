"""LoRA as it is computed here: peft's loss and gradients, bit for bit where its factor is a power of two."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from test_dora import assert_alike, learned, model_of, variants

from snaketune.training.lora import LightLora, lighten

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("family", "precision", "recomputed", "options", "tolerance"),
    [
        *((family, "fp32", False, {}, 0) for family in ("phi3", "phi", "llama", "qwen2", "qwen3", "gemma", "gemma2")),
        *(("qwen2", "fp32", kind, {}, 0) for kind in (True, "feed-forward")),
        ("llama", "fp32", False, {"lora_dropout": 0.2}, 0),
        ("llama", "bf16", False, {}, 0),
        ("qwen2", "nf4", False, {}, 0),
        ("qwen2", "fp32", False, {"lora_alpha": 6}, 1e-5),
        ("llama", "fp32", False, {"use_rslora": True, "lora_alpha": 6, "r": 3}, 1e-5),
    ],
)
def test_it_learns_what_pefts_own_does(
    family: str, precision: str, recomputed: Any, options: dict[str, Any], tolerance: float, tmp_path: Path
) -> None:
    arguments = family, tmp_path / "base", precision, recomputed
    options = {"use_dora": False, "lora_alpha": 8, **options}
    model, pefts = (model_of(*arguments, light=light, **options) for light in (True, False))
    assert (variants(model), variants(pefts)) == ({LightLora}, set())
    assert_alike(model, pefts, tolerance)


def test_products_in_bf16_are_pefts(tmp_path: Path) -> None:
    arguments: Any = "qwen2", tmp_path / "base", "fp32", False
    mine, pefts = (
        learned(model_of(*arguments, light=light, use_dora=False, lora_alpha=8), torch.bfloat16)[1]
        for light in (True, False)
    )
    assert all(torch.equal(mine[name], gradient) for name, gradient in pefts.items())


@pytest.mark.parametrize(
    "config",
    [peft.LoraConfig(lora_bias=True, target_modules=["0"]), peft.AdaLoraConfig(total_step=9, target_modules=["0"])],
    ids=["a bias that the factor multiplies", "AdaLoRA"],
)
def test_what_is_no_plain_lora_is_left_to_peft(config: Any) -> None:
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), config)
    lighten(model)
    assert any(isinstance(layer, LoraLayer) for layer in model.modules())
    assert variants(model) == set()
