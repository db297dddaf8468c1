"""Runs of a random model that are trained, merged, exported, evaluated and checked by the scripts."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

import evaluate
import merge_adapter
from snaketune.core import manifest
from snaketune.core.files import write_json, write_jsonl
from snaketune.core.layout import ADAPTER_FILE, ADAPTER_FILES, GENAI_FILES, MODEL_FILES
from snaketune.core.precisions import backend_of
from snaketune.dag.recipes import Recipes
from snaketune.data.chat_template import render
from snaketune.data.tokens import Rows, write_rows
from snaketune.training.adapters import attach
from snaketune.training.base_model import load_base
from snaketune.training.params import AdapterParams
from support.export_environment import in_export_environment
from support.measurements import run_script
from support.random_models import FAMILIES, WITHOUT_GENAI, merged

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PRECISIONS = ["fp32", "fp16", "int8", "int8-block", "int4", "genai-fp32", "genai-int4"]
MATRIX = Recipes(SHIPPED | {"precisions": PRECISIONS}, ROOT)
PARITY = MATRIX.parity_recipe("classification", "lora")
# Of what ships as an adapter beside its base, which lora doesn't.
PARITY["budgets"] |= {"adapter-shipped": SHIPPED["parity"]["budgets"]["adapter-shipped"]}
EVALUATION = MATRIX.evaluation_recipe("classification") | {"speed_prompts": 1, "speed_tokens": 2}
# As many dimensions as the model has make both factors square: one that is transposed still fits.
ADAPTER: AdapterParams = {"type": "lora", "options": {"r": 64, "lora_alpha": 64, "target_modules": ["o_proj"]}}
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
        merged(self.base, **(FAMILIES | WITHOUT_GENAI)[family])
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

    def train(
        self, run: str, seed: int, base: Path | None = None, adapter: AdapterParams = ADAPTER, **recipe: str
    ) -> Path:
        """Save an adapter whose every weight is random: none is at its start, which changes nothing."""
        torch.manual_seed(seed)
        model = attach(load_base(base or self.base, "fp32"), adapter)
        for parameter in (one for one in model.parameters() if one.requires_grad):
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(str(self.root / run / "adapter"))
        return self.record_adapter(run, base, **recipe)

    def record_adapter(self, run: str, base: Path | None = None, **recipe: str) -> Path:
        written = [self.root / run / "adapter" / name for name in ADAPTER_FILES]
        manifest.record(self.root / run, recipe, [(base or self.base) / "manifest.json"], written)
        return self.root / run / "adapter"

    def merge(self, run: str, base: Path | None = None) -> None:
        recipe = {"base_precision": "fp32", "threads": 1, "probe": EVALUATION["probe"]}
        run_script(
            merge_adapter,
            *("--recipe", json.dumps(recipe), "--base-directory", base or self.base),
            *("--adapter-directory", self.root / run / "adapter", "--tokens-directory", self.tokens),
            *("--output-directory", self.root / run / "merged"),
            *("--logits", self.root / run / "evaluation/adapter.logits.safetensors"),
        )

    def evaluate(self, run: str, precision: str | None = None, switchable: Path | None = None) -> None:
        """By torch, an export, or an adapter in place of one, beside its switchable base."""
        directory = self.root / run
        model, backend = directory / "merged/model.safetensors", "torch"
        if precision:
            model, backend = directory / f"onnx/{precision}/model.onnx", backend_of(precision)
        told = ["--output", directory / f"evaluation/{backend}.json", "--model"]
        told += [switchable / "model.onnx", "--adapter", model.with_name(ADAPTER_FILE)] if switchable else [model]
        run_script(evaluate, "--recipe", json.dumps(EVALUATION), *told, "--prefix", "--tokens-directory", self.tokens)

    def check(self, run: str, precisions: list[str], adapter: str = "control") -> subprocess.CompletedProcess[str]:
        directory = self.root / run
        command = [
            "scripts/check_parity.py",
            *("--recipe", json.dumps(PARITY), "--run-directory", directory),
            *("--exports", *(directory / f"onnx/{name}/manifest.json" for name in precisions)),
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
