"""A model of another family goes the whole way from its adapter to every export, within the shipped budgets."""

from pathlib import Path

import pytest
from support.exported_runs import HOPS, PARITY, PRECISIONS, Place, build, export, quantize, told_of
from support.random_models import WITHOUT_GENAI

from snaketune.core.files import read_json


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3, long-rope", *WITHOUT_GENAI])
def test_every_hop_is_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    for name, most in {"int4": 0.2, "genai-int4": 0.2, "int8-block": 0.01}.items():
        # Random weights have no likeliest token that rounding in blocks would leave alone.
        monkeypatch.setitem(PARITY["budgets"], f"onnx-fp32-{name}", {"kl_divergence": most})
    place, run = Place(tmp_path, family), tmp_path / "control"
    place.train("control", seed=1)
    place.merge("control")
    place.evaluate("control")
    genai = [name for name in PRECISIONS if name.startswith("genai-") and family not in WITHOUT_GENAI]
    quantized = [name for name in PRECISIONS[1:] if not name.startswith("genai-")]
    made = ["fp32", *quantized, *genai]
    steps = [
        export(run / "merged", run / "onnx/fp32"),
        *(quantize(run / "onnx/fp32", name, run / "onnx" / name) for name in quantized),
        *(build(run / "merged", name, run / "onnx" / name) for name in genai),
    ]
    for step, (code, said) in zip(steps, told_of(steps), strict=True):
        assert code == 0, (step, said)
    for name in made:
        place.evaluate("control", name)
    passed = place.check("control", made)
    assert passed.returncode == 0, passed.stderr
    hops = read_json(run / "parity.json")["hops"]
    assert set(hops) == {*HOPS[:2], *(f"onnx-fp32-{name}" for name in made[1:])}
    assert hops["onnx-fp32-int4"]["kl_divergence"] > 0
    # Quantized, not left as it was.
    assert hops["onnx-fp32-int4"]["share_of_fp32_bytes"] < 0.3
