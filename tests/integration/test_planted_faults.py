"""Every hop's parity gate, with the shipped budgets, catches a fault planted in real artifacts, and none where none is."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file
from support.export_environment import in_export_environment
from support.measurements import run_script
from test_genai_build import FAMILIES, merged
from tokenizers import Tokenizer

import evaluate
import merge_adapter
from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json, write_jsonl
from snaketune.core.layout import ADAPTER_FILES, GENAI_FILES, MODEL_FILES
from snaketune.core.precisions import backend_of
from snaketune.dag.params import Recipes
from snaketune.data.chat_template import render
from snaketune.data.tokens import Rows, write_rows
from snaketune.inference.onnx_backend import OnnxBackend
from snaketune.training.adapters import attach, load_base

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PRECISIONS = ["fp32", "fp16", "int8", "int4", "genai-fp32", "genai-int4"]
MATRIX = Recipes(SHIPPED | {"precisions": PRECISIONS}, ROOT)
PARITY = MATRIX.parity_recipe("classification", "lora")
EVALUATION = MATRIX.evaluation_recipe("classification") | {"speed_prompts": 1, "speed_tokens": 2}
# As many dimensions as the model has make both factors square: one that is transposed still fits.
ADAPTER = {"type": "lora", "options": {"r": 64, "lora_alpha": 64, "target_modules": ["o_proj"]}}
HOPS = ["adapter-merged", "merged-onnx-fp32", *(f"onnx-fp32-{name}" for name in PRECISIONS[1:])]
# Of one length: none is likelier because it is shorter.
LABELS = ["algebra", "physics", "tensors"]


def told_of(steps: list[list[Any]]) -> list[tuple[int, str]]:
    """Exit code and standard error of each step: all in one process, because it takes seconds to start."""
    done = in_export_environment("tests/support/exporting.py", given=json.dumps(steps, default=str))
    assert done.returncode == 0, done.stderr[-3000:]
    return [(code, said) for code, said in json.loads(done.stdout.splitlines()[-1])]


def change_weight(model: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Save a model with another weight, as if it had been made so."""
    weights = load_file(model / "model.safetensors")
    weights[name] = change(weights[name])
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    manifest.record(model, {}, [], [model / one for one in MODEL_FILES])


class Place:
    """A random model with an adapter, and the runs that are made of them."""

    def __init__(self, root: Path, family: str = "phi3"):
        self.root, self.base, self.tokens = root, root / "base", root / "tokens"
        merged(self.base, **FAMILIES[family])
        # Random weights find all tokens about equally likely: a fault would move no probability.
        change_weight(self.base, "model.norm.weight", lambda weight: 3 * weight)
        self._tokenize()

    def _tokenize(self) -> None:
        tokenizer = Tokenizer.from_file(str(self.base / "tokenizer.json"))
        drawn = np.random.default_rng(0)
        ids, answers, rows = [], [], []
        for number in range(60):
            label = LABELS[number % len(LABELS)]
            question = "".join(map(chr, drawn.integers(97, 123, drawn.integers(5, 25))))
            whole = np.array(tokenizer.encode(render(question, label)).ids[:-1])
            ids.append(whole)
            answers.append(np.arange(len(whole)) >= len(whole) - len(label) - 1)
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": label}]
            rows.append({"id": str(number), "reference": label, "messages": messages})
        self.tokens.mkdir()
        write_rows(self.tokens / "test.safetensors", Rows(ids, answers))
        write_jsonl(self.tokens / "test.jsonl", rows)
        end = ids[0][-1].item()
        candidates = {label: [*tokenizer.encode(label).ids, end] for label in LABELS}
        write_json(self.tokens / "decoding.json", {"candidates": candidates, "end": [end], "training": []})
        names = ("test.safetensors", "test.jsonl", "decoding.json")
        manifest.record(self.tokens, {}, [], [self.tokens / name for name in names])

    def train(self, run: str, seed: int) -> Path:
        """Save an adapter whose every weight is random: none is at its start, which changes nothing."""
        torch.manual_seed(seed)
        model = attach(load_base(self.base, "fp32"), ADAPTER)
        for parameter in (one for one in model.parameters() if one.requires_grad):
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(str(self.root / run / "adapter"))
        return self.record_adapter(run)

    def record_adapter(self, run: str) -> Path:
        written = [self.root / run / "adapter" / name for name in ADAPTER_FILES]
        manifest.record(self.root / run, {}, [self.base / "manifest.json"], written)
        return self.root / run / "adapter"

    def merge(self, run: str, base: Path | None = None) -> None:
        recipe = {"base_precision": "fp32", "threads": 1, "probe": PARITY["probe"]}
        run_script(
            merge_adapter,
            *("--recipe", json.dumps(recipe), "--base-directory", base or self.base),
            *("--adapter-directory", self.root / run / "adapter", "--tokens-directory", self.tokens),
            *("--output-directory", self.root / run / "merged"),
            *("--logits", self.root / run / "evaluation/adapter.logits.safetensors"),
        )

    def evaluate(self, run: str, precision: str | None = None) -> None:
        """By torch, or an export."""
        directory = self.root / run
        told: list[Any] = ["--model", directory / "merged/model.safetensors", "--output", "torch"]
        told += ["--logits", directory / "evaluation/torch.logits.safetensors"]
        recipe = EVALUATION | {"probe": PARITY["probe"]}
        if precision:
            told = ["--model", directory / f"onnx/{precision}/model.onnx", "--output", backend_of(precision)]
            recipe = EVALUATION
        told[3] = directory / f"evaluation/{told[3]}.json"
        run_script(evaluate, "--recipe", json.dumps(recipe), *told, "--prefix", "--tokens-directory", self.tokens)

    def check(self, run: str, precisions: list[str], adapter: str = "control") -> subprocess.CompletedProcess[str]:
        directory = self.root / run
        command = [
            "scripts/check_parity.py",
            *("--recipe", json.dumps(PARITY | {"precisions": precisions})),
            *("--run-directory", directory, "--tokens-directory", self.tokens),
            *("--adapter-logits", self.root / adapter / "evaluation/adapter.logits.safetensors"),
            *("--evidence", directory / "evidence.json", "--output", directory / "parity.json"),
        ]
        return subprocess.run(
            [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
        )

    def beside(self, run: str, precision: str = "") -> Path:
        """A run like the control up to fp32; where its export of a precision goes."""
        if not (self.root / run).exists():
            for name in ("merged", "evaluation", "onnx/fp32"):
                shutil.copytree(self.root / "control" / name, self.root / run / name)
        return self.root / run / "onnx" / precision

    def change_package(self, run: str, name: str, content: dict[str, Any]) -> None:
        """A file of the control's genai-fp32, as if it had been built so."""
        package = self.beside(run, "genai-fp32")
        shutil.copytree(self.root / "control/onnx/genai-fp32", package)
        write_json(package / name, content)
        manifest.record(package, {}, [], [package / one for one in GENAI_FILES])


def export(model: Path, out: Path) -> list[Any]:
    return ["export_onnx.py", "--recipe", "{}", "--model-directory", model, "--output-directory", out]


def quantize(fp32: Path, precision: str, out: Path) -> list[Any]:
    recipe = json.dumps(MATRIX.export_recipe(precision))
    paths = ["--model", fp32 / "model.onnx", "--calibration-directory", "--output-directory", out]
    return ["quantize_onnx.py", "--recipe", recipe, *paths]


def build(model: Path, precision: str, out: Path) -> list[Any]:
    recipe = json.dumps(MATRIX.export_recipe(precision))
    return ["build_genai.py", "--recipe", recipe, "--model-directory", model, "--output-directory", out]


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
    "int8 scale infinite": "int8",
    "int4 scale of a block overflowed": "int4",
    "fp16 weights overflowed": "fp16",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The control, and the runs with a fault: every one made by the scripts."""
    torch.set_num_threads(1)
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
    change_weight(large, "model.layers.0.mlp.down_proj.weight", lambda weight: 1e7 * weight)

    fp32 = control / "onnx/fp32"
    steps = [
        export(control / "merged", fp32),
        *(quantize(fp32, name, control / "onnx" / name) for name in ("fp16", "int8", "int4")),
        *(build(control / "merged", name, control / "onnx" / name) for name in ("genai-fp32", "genai-int4")),
        *(export(root / run / "merged", root / run / "onnx/fp32") for run in ("A transposed", "A and B swapped")),
        export(rope, root / "rope/onnx/fp32"),
        export(large, root / "large/onnx/fp32"),
        *(build(root / "another seed/merged", name, root / "another seed/onnx" / name) for name in PRECISIONS[4:]),
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


@pytest.mark.parametrize(
    "fault", ["int8 scale overflowed", "int8 weights saturated", "int4 scale of a block overflowed"]
)
def test_a_spoiled_weight_or_scale_is_caught_at_its_precision(place: Place, fault: str) -> None:
    precision = QUANTIZED_FAULTS[fault]
    shutil.copytree(place.root / "planted" / fault, place.beside(fault, precision))
    place.evaluate(fault, precision)
    caught(place, fault, ["fp32", precision], f"onnx-fp32-{precision}", "kl_divergence")


@pytest.mark.parametrize("fault", ["int8 scale infinite", "fp16 weights overflowed"])
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
    # The gate trusts no evaluation: these answers are of the model before its fault.
    shutil.copyfile(place.root / "control" / evaluated, place.root / fault / evaluated)
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
    place.evaluate("no template", "genai-fp32")
    failed = place.check("no template", ["fp32", "genai-fp32"])
    assert failed.returncode == 1
    [line] = failed.stderr.splitlines()
    assert re.match(
        r"error: .*genai-fp32/tokenizer_config\.json: onnxruntime-genai can't apply its `chat_template`", line
    )
    assert not (place.root / "no template/parity.json").exists()


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
    with pytest.raises(UserError, match=f"{run} was made of another base than {other}"):
        place.merge(run.name, other)
    assert {path.name for path in run.iterdir()} == {"adapter", "manifest.json"}
