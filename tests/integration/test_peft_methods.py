"""Every method of peft that isn't refused is trained, saved, merged or made a prefix, and exported; options are peft's."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from support.exported_runs import export, told_of
from support.trained import ROWS, Trained, logits
from support.training_runs import killed, write_inputs

from snaketune.config import peft_methods
from snaketune.config.peft_methods import EMBEDDED, OWN, REFUSED, UNMERGED, ends
from snaketune.config.technique import Technique
from snaketune.core import manifest
from snaketune.core.files import read_json, read_yaml
from snaketune.core.layout import ADAPTER_FILES, MODEL_FILES, PREFIX_FILE
from snaketune.dag import estimates
from snaketune.dag.shape import Shape
from snaketune.inference.load import load
from snaketune.training.adapters import load_adapter, prefix_of
from snaketune.training.base_model import load_base
from snaketune.training.batches import collate
from snaketune.training.loss import answer_loss
from snaketune.training.prefix import write_prefix
from snaketune.training.streamed_merge import save_merged

pytestmark = pytest.mark.usefixtures("one_thread")
# What fits a model of 32 dimensions, and a rate at which it learns in a few steps.
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"init_r": 6, "target_r": 2}, "c3a": {"block_size": 16}, "fourierft": {"n_frequency": 50}, "miss": {"r": 16}, "road": {"group_size": 16}, "shira": {"r": 4},
    "lora": {"modules_to_save": ["lm_head", "norm"]},
    "trainable_tokens": {"token_indices": [51, 50, 41]}, "vblora": {"vector_length": 16, "num_vectors": 16},
    "waveft": {"n_frequency": 50}, **{name: {"num_virtual_tokens": 4} for name in EMBEDDED},
}  # fmt: skip
RATES: dict[str, float] = {}
ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config/techniques").glob("*.yaml"))
# LoRA has tests of its own, but not with modules that are trained whole.
METHODS = sorted(peft_methods.methods().keys() - OWN.keys() - REFUSED.keys())


def recipe(method: str, **changes: Any) -> dict[str, Any]:
    adapter = {"type": method, "options": OPTIONS.get(method, {})}
    technique = {"description": method, "adapter": adapter, "learning_rate": RATES.get(method, 0.01)}
    return Technique.model_validate(technique | changes).recipe("phi3")


def loss(model: Any, shared: bool = False) -> float:
    with torch.no_grad():
        return float(answer_loss(model, *collate(ROWS, list(range(16)), 0, torch.device("cpu"), shared)))


class Run:
    """A method trained for a few steps, and what its run ends with."""

    def __init__(self, method: str, base: Path, out: Path):
        started = Trained(base, out, recipe(method), steps=8)
        self.base, self.before, self.trained = base, loss(started.model.eval()), started.run()
        self.expected, self.adapter, self.merged, self.prefix = started.logits(), out / "adapter", out / "merged", None
        manifest.record(out, {}, [], sorted(self.adapter.iterdir()))
        if ends(method) == "prefix":
            self.prefix, self.merged = out / PREFIX_FILE, base
            write_prefix(self.prefix, prefix_of(load_adapter(base, "fp32", self.adapter)))
        elif ends(method) == "merged":
            save_merged(base, "fp32", self.adapter, self.merged)
            complete(self.merged)

    def logits(self, model: Path, adapter: Path | None = None) -> np.ndarray:
        backend = load(model, self.prefix, 1, adapter=adapter)
        rows = [ids[None].astype(np.int64) for ids in ROWS.ids[:8]]
        return np.concatenate([backend.forward(ids, None, ids.shape[1])[0][0] for ids in rows])


def complete(model: Path) -> None:
    """Add the files that an export copies, and a manifest."""
    for name in MODEL_FILES[2:]:
        (model / name).write_text("{}")
    manifest.record(model, {}, [], [model / name for name in MODEL_FILES])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_inputs(directory)
    complete(directory / "base")
    return directory / "base"


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A method's run, made once."""
    return cache(lambda method: Run(method, base, tmp_path_factory.mktemp(method)))


def test_the_methods_and_their_options_are_those_of_peft() -> None:
    mapping = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    assert peft_methods.methods() == {name: config.__name__ for name, config in mapping.items()}
    assert OWN.keys() | REFUSED.keys() | UNMERGED.keys() < mapping.keys()
    for name in METHODS:
        apart = peft_methods.SET | {"target_modules"}
        apart |= {one.name for one in fields(mapping["lora"])} if name == "adalora" else set()
        assert {one.name for one in fields(mapping[name])} - apart == peft_methods.options(name).keys() - apart


def test_a_stopped_adalora_goes_on_with_the_importances_that_it_had(base: Path, tmp_path: Path) -> None:
    whole = Trained(base, tmp_path / "whole", recipe("adalora"), steps=8).run()
    pattern = whole.model.active_peft_config.rank_pattern
    assert sum(map(sum, pattern.values())) == 2 * len(pattern)
    killed(Trained(base, tmp_path / "stopped", recipe("adalora"), steps=8).fit, 7)
    resumed = Trained(base, tmp_path / "stopped", recipe("adalora"), steps=8).run()
    assert resumed.fit.log == whole.fit.log
    for name in ADAPTER_FILES:
        assert (resumed.out / "adapter" / name).read_bytes() == (whole.out / "adapter" / name).read_bytes()


COMMON = {
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias", "fan_in_fan_out", "init_weights",
}  # fmt: skip


def test_the_documentation_lists_all_methods_and_why_some_are_refused() -> None:
    said = {"merged": "a merged model", "prefix": "a prefix", "adapter": "the adapter"}
    presets = {
        content["adapter"]["type"]: path.stem
        for path in FILES
        if "type" in ((content := read_yaml(path)).get("adapter") or {})
    }
    lines = ["| type | a run ends in | file | options |", "|---|---|---|---|"]
    for name in METHODS:
        options = ", ".join(f"`{one}`" for one in peft_methods.options(name) if one not in COMMON)
        lines.append(
            f"| `{name}` | {said[ends(name)]} | {f'`{presets[name]}`' if name in presets else '–'} | {options or '–'} |"
        )
    lines += ["", "| not trained | why |", "|---|---|", *(f"| `{name}` | {why} |" for name, why in REFUSED.items())]
    told = "\n".join(lines)
    assert (ROOT / "docs/techniques.md").read_text().endswith(f"\n{told}\n"), told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [*METHODS, "lora"])
def test_a_method_learns_and_its_run_ends_as_it_says(method: str, base: Path, made: Callable[[str], Run]) -> None:
    run = made(method)
    assert loss(run.trained.model) < run.before - 0.1
    assert loss(run.trained.model, shared=True) == pytest.approx(loss(run.trained.model), rel=1e-5)
    assert np.abs(run.expected - logits(load_base(base, "fp32"))).max() > 0.01
    trained, _ = run.trained.model.get_nb_trainable_parameters()
    shape = Shape.of(read_json(base / "config.json"))
    assert 0 < trained <= estimates.adapter_parameters(shape, run.trained.recipe["adapter"])
    beside = logits(load_adapter(base, "fp32", run.adapter))
    np.testing.assert_allclose(beside, run.expected, atol=1e-4)
    adapter = run.adapter / "adapter_model.safetensors" if ends(method) == "adapter" else None
    found = run.logits((base if adapter else run.merged) / "model.safetensors", adapter)
    np.testing.assert_allclose(found, run.expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_the_onnx_model_of_each_method_computes_the_same(
    base: Path, made: Callable[[str], Run], tmp_path: Path
) -> None:
    runs = {method: made(method) for method in [*METHODS, "lora"] if ends(method) != "adapter"}
    models = {run.merged: tmp_path / str(number) for number, run in enumerate(runs.values())}
    for said in told_of([export(model, out) for model, out in models.items()]):
        assert said[0] == 0, said
    for method, run in runs.items():
        found = run.logits(models[run.merged] / "model.onnx")
        np.testing.assert_allclose(found, run.expected, atol=2e-3, err_msg=method)
