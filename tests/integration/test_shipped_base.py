"""Adapters trained on the numbers of a weight-only export, and shipped beside it: nothing is rounded in between."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.numpy import load_file
from support import exported_runs
from support.exported_runs import PARITY, Place, export, told_of
from support.measurements import run_script

import export_adapter
from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256, write_json
from snaketune.core.layout import ADAPTER_FILE
from snaketune.data.tokens import read_rows, write_rows
from snaketune.export.runtime_adapters.files import parts_of_all
from snaketune.inference.adapter_backend import OnnxAdapterBackend
from snaketune.inference.onnx_backend import OnnxBackend

# Families, and the exports whose numbers their adapters are trained on.
SHIPPED = [
    ("llama", "int4"),
    ("qwen2", "int4-k-quant"),
    ("phi3", "int4-hqq"),
    ("phi3, long-rope", "int4-gptq"),
    ("llama", "nf4"),
    ("llama", "genai-int4"),
    ("qwen2", "genai-int4"),
    ("phi3", "genai-int4"),
]
# Only activations are rounded, and without accuracy_level 4 not even those.
EXACT = {"largest_logit_difference": 1e-3, "kl_divergence": 1e-6}


def export_recipe(precision: str) -> str:
    """The shipped export, in blocks of which the narrow layers here have an even number."""
    recipes = exported_runs.Recipes(exported_runs.SHIPPED | {"precisions": ["fp32", precision]}, exported_runs.ROOT)
    found = recipes.export_recipe(precision)
    exact = {} if precision in ("int4", "int4-hqq") else {"accuracy_level": 1}
    return json.dumps(
        {**found, "options": {**found["options"], **exact, "block_size": 64 if precision == "nf4" else 16}}
    )


class Shipped:
    """A model whose export is trained on, as the rules make it."""

    def __init__(self, place: Place, precision: str, family: str):
        self.place, self.precision, self.run, root = place, precision, f"run-{precision}", place.root
        self.fp32, self.export = root / "onnx/fp32", root / "onnx" / precision
        self.numbers, self.switchable = root / "dequantized" / precision, root / "switchable" / precision
        targets = LINEAR_LAYERS[family.partition(",")[0]]
        self.adapter: Any = {"type": "lora", "options": {"r": 4, "lora_alpha": 8, "target_modules": targets}}

    def first_steps(self) -> list[list[Any]]:
        place, tokens = self.place, self.place.root / "training"
        tokens.mkdir(exist_ok=True)
        write_rows(tokens / "train.safetensors", read_rows(place.tokens / "test.safetensors"))
        manifest.record(tokens, {}, [], [tokens / "train.safetensors"])
        calibration = ["--calibration-directory", tokens]
        recipe = ["--recipe", export_recipe(self.precision)]
        following = [self.dequantize(self.export, self.numbers), self.make_switchable(self.export, self.numbers)]
        if self.precision.startswith("genai-"):
            told = ["--model-directory", place.base, "--output-directory", self.export]
            return [["build_genai.py", *recipe, *told], *following]
        return [
            *([] if self.fp32.exists() else [export(place.base, self.fp32)]),
            ["quantize_onnx.py", *recipe, "--model", self.fp32 / "model.onnx", *calibration, "--output-directory", self.export],
            *following,
        ]  # fmt: skip

    def dequantize(self, export: Path, out: Path, base: Path | None = None) -> list[Any]:
        told = ["--recipe", "{}", "--base-directory", base or self.place.base, "--model", export / "model.onnx"]
        return ["dequantize_base.py", *told, "--output-directory", out]

    def make_switchable(self, export: Path, numbers: Path) -> list[Any]:
        recipe = ["--recipe", json.dumps({"parts": parts_of_all([self.adapter])})]
        told = ["--base-directory", numbers, "--model-directory", export, "--output-directory", self.switchable]
        return ["export_base_for_adapters.py", *recipe, *told]

    def train(self) -> None:
        self.place.train(self.run, 1, self.numbers, self.adapter, base_precision=f"export:{self.precision}")
        self.place.merge(self.run, self.numbers)

    def export_adapter(self, numbers: Path | None = None, switchable: Path | None = None) -> Path:
        out = self.place.root / self.run / "onnx" / self.precision
        run_script(
            export_adapter,
            *("--recipe", "{}", "--base-directory", numbers or self.numbers),
            *("--switchable-directory", switchable or self.switchable),
            *("--adapter-directory", self.place.root / self.run / "adapter", "--output-directory", out),
        )
        return out / ADAPTER_FILE

    def evaluate(self, run: str, switchable: Path) -> None:
        self.place.evaluate(run, self.precision, switchable)


def run_all(steps: list[list[Any]]) -> None:
    for step, (code, said) in zip(steps, told_of(steps), strict=True):
        assert code == 0, (step, said)


@pytest.fixture(scope="module")
def shipped(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Shipped]:
    """Every run, up to its parity check: every file made by the scripts."""
    root = tmp_path_factory.mktemp("shipped")
    places = {family: Place(root / family.replace(", ", "-"), family) for family in dict(SHIPPED)}
    made = {(family, precision): Shipped(places[family], precision, family) for family, precision in SHIPPED}
    run_all([step for one in made.values() for step in one.first_steps()])
    for one in made.values():
        one.train()
    gptq = made["phi3, long-rope", "int4-gptq"]
    planted = ["plant", "zero points swapped", gptq.switchable, gptq.switchable.with_name("planted")]
    runs = [one.place.root / one.run for one in made.values()]
    run_all([planted, *(export(run / "merged", run / "onnx/fp32") for run in runs)])
    for one in made.values():
        one.export_adapter()
        for precision in (None, "fp32"):
            one.place.evaluate(one.run, precision)
        one.evaluate(one.run, one.switchable)
    return made


@pytest.mark.parametrize("which", SHIPPED, ids=str)
def test_what_is_shipped_computes_what_was_trained(
    shipped: dict[tuple[str, str], Shipped], which: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = shipped[which]
    # The shipped budget leaves room for activations of 8 bits.
    assert PARITY["budgets"]["adapter-shipped"]
    if one.precision != "int4":
        monkeypatch.setitem(PARITY["budgets"], "adapter-shipped", EXACT)
    passed = one.place.check(one.run, ["fp32", one.precision], one.run)
    assert passed.returncode == 0, passed.stderr
    hops = read_json(one.place.root / one.run / "parity.json")["hops"]
    assert set(hops) == {"adapter-merged", "merged-onnx-fp32", "adapter-shipped"}
    # Of the adapter alone: the base is there once.
    assert hops["adapter-shipped"]["share_of_fp32_bytes"] < 0.1


def test_what_is_trained_on_for_nf4_is_what_bitsandbytes_has(shipped: dict[tuple[str, str], Shipped]) -> None:
    # Of a width that is a multiple of 64: others bitsandbytes 0.50 dequantizes wrongly on a processor.
    one, name = shipped["llama", "nf4"], "model.layers.1.mlp.up_proj.weight"
    weight, rounded = (load_file(path / "model.safetensors")[name] for path in (one.place.base, one.numbers))
    codes, state = quantize_4bit(torch.from_numpy(weight), blocksize=64, quant_type="nf4", compress_statistics=False)
    assert np.array_equal(rounded, dequantize_4bit(codes, state).numpy())


def test_a_switchable_base_without_an_adapter_is_the_export(shipped: dict[tuple[str, str], Shipped]) -> None:
    for one in [one for (_, precision), one in shipped.items() if not precision.startswith("genai-")]:
        ids = np.arange(12)[None] + 100
        alone, export = (OnnxBackend(path / "model.onnx", 1) for path in (one.switchable, one.export))
        assert np.array_equal(alone.forward(ids, None, 4)[0], export.forward(ids, None, 4)[0])


def test_a_tied_head_is_its_own_only_where_it_was_rounded_otherwise(shipped: dict[tuple[str, str], Shipped]) -> None:
    for which, untied in (
        (("qwen2", "int4-k-quant"), False),
        (("phi3", "genai-int4"), False),
        (("phi3", "int4-hqq"), True),
    ):
        one = shipped[which]
        assert read_json(one.numbers / "config.json")["tie_word_embeddings"] != untied
        assert ("lm_head.weight" in load_file(one.numbers / "model.safetensors")) == untied


def test_swapped_zero_points_are_caught_by_the_parity_of_what_is_shipped(
    shipped: dict[tuple[str, str], Shipped],
) -> None:
    one = shipped["phi3, long-rope", "int4-gptq"]
    planted = one.switchable.with_name("planted")
    content = manifest.read(planted / "manifest.json")
    write_json(
        planted / "manifest.json", {**content, "inputs": manifest.read(one.switchable / "manifest.json")["inputs"]}
    )
    shutil.copytree(one.place.root / one.run, one.place.root / "swapped")
    one.evaluate("swapped", planted)
    failed = one.place.check("swapped", ["fp32", one.precision], one.run)
    assert failed.returncode == 1
    assert "adapter-shipped: kl_divergence" in failed.stderr
    assert read_json(one.place.root / "swapped/evidence.json")["over_budget_hops"] == ["adapter-shipped"]


def test_numbers_of_another_base_or_of_a_changed_export_are_refused(shipped: dict[tuple[str, str], Shipped]) -> None:
    one = shipped["llama", "int4"]
    root = one.place.root
    other = Path(shutil.copytree(one.place.base, root / "other"))
    exported_runs.change_weight(other, "model.layers.1.mlp.up_proj.weight", lambda weight: -weight)
    forged, changed = (root / name for name in ("forged", "changed"))
    shutil.copytree(one.export, changed)
    with (changed / "model.onnx_data").open("ab") as file:
        file.write(b" ")
    # As if the export had been made of the other base.
    shutil.copytree(one.export, forged)
    content = manifest.read(forged / "manifest.json")
    write_json(forged / "manifest.json", {**content, "inputs": {"base": sha256(other / "manifest.json")}})
    told = told_of(
        [
            one.dequantize(one.export, root / "refused", other),
            one.dequantize(forged, root / "refused", other),
            one.dequantize(changed, root / "refused"),
        ]
    )
    for (code, said), words in zip(
        told,
        ("was made from another base than", "model.layers.1.mlp.up_proj isn't", "has changed since it was made"),
        strict=True,
    ):
        assert code == 1
        assert said.count("\n") == 1
        assert words in said
    assert not (root / "refused").exists()


def test_an_adapter_on_the_wrong_bits_is_refused(shipped: dict[tuple[str, str], Shipped]) -> None:
    one = shipped["llama", "int4"]
    other = Shipped(one.place, "int4-hqq", "llama")
    run_all(other.first_steps())
    with pytest.raises(UserError, match=r"dequantized/int4-hqq .* works only with the base it was trained on"):
        one.export_adapter(other.numbers, other.switchable)
    with pytest.raises(UserError, match=r"switchable/int4-hqq was made from another base than .*dequantized/int4 "):
        one.export_adapter(one.numbers, other.switchable)
    adapter = one.place.root / one.run / "onnx/int4" / ADAPTER_FILE
    with pytest.raises(UserError, match=r"was made for another base than .*switchable/int4-hqq: export it"):
        OnnxAdapterBackend(other.switchable / "model.onnx", 1).load(adapter)
    with pytest.raises(UserError, match="was made from another base than"):
        one.place.merge(one.run, other.numbers)
