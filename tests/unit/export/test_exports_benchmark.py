"""What the benchmark of the exports computes from what it measured."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from snaketune.config.export import Export
from snaketune.core.files import read_yaml

ROOT = Path(__file__).resolve().parents[3]
BENCHMARKS = ROOT / "benchmarks"


def module(name: str, monkeypatch: Any) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def exports(monkeypatch: Any) -> ModuleType:
    return module("exports", monkeypatch)


def test_rates_are_of_each_round(exports: ModuleType) -> None:
    found = exports.rates([(0.5, 2.0), (0.25, 1.0)], prompt=64, new=65)
    assert found == {"prefill": [128, 256], "decode": [32, 64]}


def test_a_ratio_is_of_one_round_and_its_median_decides(exports: ModuleType) -> None:
    # The machine slows in the second round, for both: by the medians of each the ratio would be 4.
    of = {
        "genai-int4": {"prefill": [1, 1, 1], "decode": [80, 20, 100]},
        "torch-fp32": {"prefill": [1, 1, 1], "decode": [10, 2, 20]},
    }
    decode, size = exports.compare(of, {"genai-int4": 17, "torch-fp32": 100})
    assert decode["ratio"] == {"median": 8, "least": 5, "most": 10}
    assert (decode["figure"], decode["n"], decode["reached"]) == ("decode", 3, True)
    assert (size["figure"], size["ratio"]["median"], size["reached"]) == ("bytes", 0.17, False)


def test_goals_of_systems_that_were_left_out_are_left_out(exports: ModuleType) -> None:
    assert exports.compare({"torch-fp32": {"prefill": [1], "decode": [1]}}, {"torch-fp32": 1}) == []


def test_every_goal_and_precision_is_one_of_the_systems(exports: ModuleType) -> None:
    known = {"torch-fp32", "torch-bf16", *map(exports.backend_of, exports.PRECISIONS), *exports.GGUF}
    assert set(exports.OPTIMUM.values()) <= set(exports.PRECISIONS)
    assert {name for _, system, other, _, _ in exports.GOALS for name in (system, other)} <= known
    for precision in set(exports.PRECISIONS) - {"fp32"}:
        Export.model_validate(read_yaml(ROOT / f"config/exports/{precision}.yaml"))


def test_differences_are_from_the_parent(exports: ModuleType) -> None:
    parent = np.array([[0.0, 1.0], [2.0, 1.0]])
    found = exports.differences({"torch-fp32": parent, "onnx-int8": parent + np.array([[0.0, 0.0], [0.0, 1.5]])})
    assert found["torch-fp32"] == {"largest_logit_difference": 0, "greedy_agreement": 1}
    assert found["onnx-int8"] == {"largest_logit_difference": 1.5, "greedy_agreement": 0.5}


def test_shares_are_medians_of_the_steps_without_the_prompt(monkeypatch: Any) -> None:
    def step(start: int, products: int, whole: int) -> list[dict[str, Any]]:
        kernel = {"name": "/x_kernel_time", "ts": start + 1, "dur": products, "args": {"op_name": "MatMulNBits"}}
        return [kernel, {**kernel, "ts": start + 2}, {"name": "model_run", "ts": start, "dur": whole}]

    events = [*step(0, 5000, 20000), *step(30000, 40, 100), *step(31000, 30, 80), *step(32000, 900, 2500)]
    assert module("operators", monkeypatch).shares(events)[2:] == [
        "| MatMulNBits | 80 | 80% |",
        "| (between operators) | 20 | 20% |",
    ]


@pytest.mark.parametrize("script", ["exports.py", "operators.py"])
def test_its_help_needs_no_llama(script: str) -> None:
    shown = subprocess.run([sys.executable, BENCHMARKS / script, "--help"], capture_output=True, text=True, check=True)
    assert "--threads" in shown.stdout


def test_a_model_that_gguf_cant_say_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    gguf = module("llama", monkeypatch)
    config = {"model_type": "phi3", "rope_parameters": {"rope_type": "longrope"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(gguf.UserError, match=r"config\.json: only a Phi-3 or Llama without rope scaling"):
        gguf.write_gguf(tmp_path, tmp_path / "out.gguf", "F32")
    assert not (tmp_path / "out.gguf").exists()
