"""Every hop's parity gate, with the shipped budgets, catches a fault planted in real artifacts, and none where none is."""

import re
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from support import exported_runs
from support.exported_runs import HOPS, PARITY, PRECISIONS, Place, build, export, quantize, told_of
from support.random_models import merged

from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json
from snaketune.core.layout import MODEL_FILES
from snaketune.data.tokens import read_rows
from snaketune.inference.onnx_backend import OnnxBackend
from snaketune.inference.probe import write_probe


def spoil_factors(place: Place, run: str) -> None:
    """The control's adapter, merged with one fault."""
    shutil.copytree(place.root / "control/adapter", place.root / run / "adapter")
    path = place.root / run / "adapter/adapter_model.safetensors"
    factors = load_file(path)
    for name in [name for name in factors if ".lora_A." in name]:
        other = name.replace(".lora_A.", ".lora_B.")
        if run == "A transposed":
            factors[name] = factors[name].T.copy()
        else:
            factors[name], factors[other] = factors[other], factors[name]
    save_file(factors, path, metadata={"format": "pt"})
    place.record_adapter(run)
    place.merge(run)
    place.evaluate(run)


def changed_merged(place: Place, name: str) -> Path:
    """A copy of the control's merged/ to change."""
    return Path(shutil.copytree(place.root / "control/merged", place.root / name / "merged"))


QUANTIZED_FAULTS = {
    "int8 scale overflowed": "int8",
    "int8 weights saturated": "int8",
    "int4 scale of a block overflowed": "int4",
    "int8 scale of a block overflowed": "int8-block",
    "int8 scale infinite": "int8",
    "fp16 weights overflowed": "fp16",
}


@pytest.fixture(scope="module")
def place(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The control, and the runs with a fault: every one made by the scripts."""
    place = Place(tmp_path_factory.mktemp("planted"))
    for run, seed in (("control", 1), ("another seed", 2)):
        place.train(run, seed)
        place.merge(run)
    place.evaluate("control")
    for run in ("A transposed", "A and B swapped"):
        spoil_factors(place, run)

    root, control = place.root, place.root / "control"
    rope = changed_merged(place, "rope")
    config = read_json(rope / "config.json")
    config["rope_parameters"]["rope_theta"] = 100.0
    write_json(rope / "config.json", config)
    manifest.record(rope, {}, [], [rope / name for name in MODEL_FILES])
    large = changed_merged(place, "large")
    exported_runs.change_weight(large, "model.layers.0.mlp.down_proj.weight", lambda weight: 1e7 * weight)

    fp32 = control / "onnx/fp32"
    steps = [
        export(control / "merged", fp32),
        *(quantize(fp32, name, control / "onnx" / name) for name in ("fp16", "int8", "int8-block", "int4")),
        *(build(control / "merged", name, control / "onnx" / name) for name in ("genai-fp32", "genai-int4")),
        *(export(root / run / "merged", root / run / "onnx/fp32") for run in ("A transposed", "A and B swapped")),
        export(rope, root / "rope/onnx/fp32"),
        export(large, root / "large/onnx/fp32"),
        *(build(root / "another seed/merged", name, root / "another seed/onnx" / name) for name in PRECISIONS[5:]),
        *(
            ["plant", fault, control / "onnx" / precision, root / "planted" / fault]
            for fault, precision in QUANTIZED_FAULTS.items()
        ),
    ]
    for step, (code, said) in zip(steps, told_of(steps), strict=True):
        assert code == 0, (step, said)
    for precision in PRECISIONS:
        place.evaluate("control", precision)
    return place


def caught(place: Place, run: str, precisions: list[str], hop: str, figure: str) -> dict[str, Any]:
    """The evidence of a run of which the gate finds only this hop, by this figure, over its budget."""
    failed = place.check(run, precisions)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    [line] = failed.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"{hop}: {figure}" in line
    evidence: dict[str, Any] = read_json(place.root / run / "evidence.json")
    assert evidence["over_budget_hops"] == [hop]
    assert set(evidence["hops"]) == {*HOPS[:2], hop}
    assert str(place.root / run / "evidence.json") in line
    assert not (place.root / run / "parity.json").exists()
    return evidence


def test_without_a_fault_every_hop_is_within_its_shipped_budget(place: Place) -> None:
    passed = place.check("control", PRECISIONS)
    assert passed.returncode == 0, passed.stderr
    found = read_json(place.root / "control/parity.json")
    assert found["passed"]
    assert set(found["hops"]) == set(HOPS)
    assert set(HOPS) <= PARITY["budgets"].keys()
    assert not (place.root / "control/evidence.json").exists()


@pytest.mark.parametrize("fault", ["A transposed", "A and B swapped"])
def test_a_wrongly_merged_factor_is_caught_at_the_merge(place: Place, fault: str) -> None:
    place.evaluate(fault, "fp32")
    caught(place, fault, ["fp32"], "adapter-merged", "largest_logit_difference")


def test_an_export_with_another_rope_is_caught_at_the_export(place: Place) -> None:
    shutil.copytree(place.root / "rope/onnx", place.root / "another rope/onnx")
    for name in ("merged", "evaluation"):
        shutil.copytree(place.root / "control" / name, place.root / "another rope" / name)
    place.evaluate("another rope", "fp32")
    caught(place, "another rope", ["fp32"], "merged-onnx-fp32", "largest_logit_difference")


@pytest.mark.parametrize("fault", list(QUANTIZED_FAULTS)[:4])
def test_a_spoiled_weight_or_scale_is_caught_at_its_precision(place: Place, fault: str) -> None:
    precision = QUANTIZED_FAULTS[fault]
    shutil.copytree(place.root / "planted" / fault, place.beside(fault, precision))
    place.evaluate(fault, precision)
    caught(place, fault, ["fp32", precision], f"onnx-fp32-{precision}", "kl_divergence")


@pytest.mark.parametrize("fault", list(QUANTIZED_FAULTS)[4:])
def test_what_isnt_a_number_is_refused_by_evaluation_and_by_the_gate_even_if_it_only_warns(
    place: Place, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision = QUANTIZED_FAULTS[fault]
    directory, evaluated = place.beside(fault, precision), f"evaluation/onnx-{precision}.predictions.jsonl"
    shutil.copytree(place.root / "planted" / fault, directory)
    (place.root / fault / evaluated).unlink()
    with pytest.raises(UserError, match=rf"{precision}/model\.onnx: row 0: .* is (nan|inf), expected a finite number"):
        place.evaluate(fault, precision)
    assert not (place.root / fault / evaluated).exists()
    # The gate looks at the logits, too: these answers are of the model before its fault.
    shutil.copyfile(place.root / "control" / evaluated, place.root / fault / evaluated)
    logits, rows = f"evaluation/onnx-{precision}.logits.safetensors", read_rows(place.tokens / "test.safetensors")
    write_probe(
        place.root / fault / logits, OnnxBackend(directory / "model.onnx", 1), rows, exported_runs.EVALUATION["probe"]
    )
    for gate in ("warn", "fail"):
        monkeypatch.setitem(PARITY, "gate", gate)
        monkeypatch.setitem(PARITY, "budgets", PARITY["budgets"] if gate == "fail" else {})
        evidence = caught(place, fault, ["fp32", precision], f"onnx-fp32-{precision}", "logits aren't finite numbers")
        assert evidence["hops"][f"onnx-fp32-{precision}"]["largest_logit_difference"] is None
    assert not evidence["passed"]


def test_a_weight_beyond_fp16_is_refused_before_anything_is_written(place: Place) -> None:
    out = place.root / "large/onnx/fp16"
    [(code, said)] = told_of([quantize(place.root / "large/onnx/fp32", "fp16", out)])
    assert code == 1
    assert said.count("\n") == 1
    assert re.search(r"has a weight of \S+, fp16 holds at most 65504", said)
    assert not list(out.glob("*"))


def test_an_architecture_that_optimum_doesnt_know_is_one_message(place: Place, tmp_path: Path) -> None:
    merged(tmp_path / "merged", model_type="starcoder2")
    [(code, said)] = told_of([export(tmp_path / "merged", tmp_path / "fp32")])
    assert code == 1
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "config.json: optimum can't export `architectures` Starcoder2ForCausalLM: " in line
    assert "Traceback" not in said
    assert not list((tmp_path / "fp32").glob("*"))


def test_a_provider_that_doesnt_start_is_never_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a build for GPUs on a machine without one: named, yet nothing starts.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(UserError, match="CUDAExecutionProvider doesn't start here"):
        OnnxBackend(place.root / "control/onnx/fp32/model.onnx", 1, provider="CUDAExecutionProvider")


def test_a_package_with_another_tokenizer_is_caught_by_its_prompts(place: Place) -> None:
    tokenizer = read_json(place.root / "control/onnx/genai-fp32/tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    place.change_package("two tokens swapped", "tokenizer.json", tokenizer)
    place.evaluate("two tokens swapped", "genai-fp32")
    evidence = caught(place, "two tokens swapped", ["fp32", "genai-fp32"], "onnx-fp32-genai-fp32", "prompt_agreement")
    found = evidence["hops"]["onnx-fp32-genai-fp32"]
    assert found["prompt_agreement"] < 1
    assert found["largest_logit_difference"] < 1e-3


def test_a_package_without_its_chat_template_is_caught(place: Place) -> None:
    config = read_json(place.root / "control/onnx/genai-fp32/tokenizer_config.json")
    del config["chat_template"]
    place.change_package("no template", "tokenizer_config.json", config)
    refused = r"genai-fp32/tokenizer_config\.json: onnxruntime-genai can't apply its `chat_template`"
    with pytest.raises(UserError, match=refused):
        place.evaluate("no template", "genai-fp32")


@pytest.mark.parametrize(
    ("precision", "figure"), [("genai-fp32", "largest_logit_difference"), ("genai-int4", "kl_divergence")]
)
def test_a_package_of_another_run_is_caught_by_its_logits(place: Place, precision: str, figure: str) -> None:
    run = f"another run, {precision}"
    shutil.copytree(place.root / "another seed/onnx" / precision, place.beside(run, precision))
    place.evaluate(run, precision)
    caught(place, run, ["fp32", precision], f"onnx-fp32-{precision}", figure)


def test_an_adapter_of_another_base_isnt_merged(place: Place, tmp_path: Path) -> None:
    other = Path(shutil.copytree(place.base, tmp_path / "base"))
    config = read_json(other / "config.json") | {"rms_norm_eps": 1e-3}
    write_json(other / "config.json", config)
    manifest.record(other, {}, [], [other / name for name in MODEL_FILES])
    run = place.root / "for another base"
    for name in ("adapter", "manifest.json"):
        source = place.root / "control" / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, run.mkdir(exist_ok=True) or run / name)
    with pytest.raises(UserError, match=f"{run} was made from another base than {other}"):
        place.merge(run.name, other)
    assert {path.name for path in run.iterdir()} == {"adapter", "manifest.json"}
