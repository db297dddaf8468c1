"""Each technique: it learns, it saves what it trained, and its model beside or merged into the base is the same."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.numpy import load_file
from support.measurements import run_script
from support.merges import assert_merged_alike
from support.trained import ROWS, Trained, logits
from support.training_runs import TECHNIQUES, command, curve, killed, recipe_of, weights, write_inputs

import train
from snaketune.config.matrix import technique_model
from snaketune.config.technique import FAST_PATHS, Technique
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_yaml
from snaketune.core.layout import ADAPTER_FILES, PREFIX_FILE
from snaketune.dag.recipes import Recipes
from snaketune.inference.decoding import answer_nll, generate
from snaketune.inference.onnx_backend import OnnxBackend
from snaketune.inference.probe import probe_logits
from snaketune.inference.torch_backend import TorchBackend
from snaketune.platforms.registry import PLATFORMS, read_matrix
from snaketune.training import loss
from snaketune.training.adapters import attach, load_adapter, merge, prefix_of
from snaketune.training.base_model import load_base
from snaketune.training.batches import collate
from snaketune.training.dora import LightDora
from snaketune.training.engines import accelerator_for, optimizer_for
from snaketune.training.lora import LightLora
from snaketune.training.loss import answer_loss
from snaketune.training.memory import model_state_bytes
from snaketune.training.prefix import read_prefix, write_prefix

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")

FROZEN = ["lora", "lora-int4", "qlora", "dora", "qdora", "peft-ia3", "peft-vera", "peft-prefix"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_inputs(directory)
    return directory / "base"


def technique(name: str, **options: Any) -> dict[str, Any]:
    """The recipe of a shipped technique, with other options of its adapter."""
    content = read_yaml(ROOT / f"config/techniques/{name}.yaml")
    content.get("adapter", {}).get("options", {}).update(options)
    recipe: dict[str, Any] = validated(Technique, content, name).recipe("phi3")
    return recipe | {"learning_rate": recipe["learning_rate"]["tiny-phi3"]}


@pytest.fixture(scope="module")
def prefixed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    trained = Trained(base, tmp_path_factory.mktemp("prefixed"), technique("peft-prefix", num_virtual_tokens=5)).run()
    write_prefix(trained.out / PREFIX_FILE, prefix_of(load_adapter(base, "fp32", trained.out / "adapter")))
    return trained


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in FROZEN if name != "peft-prefix"),
    ("lora", {"use_rslora": True, "init_lora_weights": "gaussian"}),
    ("lora", {"init_lora_weights": "pissa"}),
    ("lora", {"init_lora_weights": "pissa", "use_rslora": True}),
    ("dora", {"init_lora_weights": "pissa"}),
    ("peft-vera", {"save_projection": False}),
]


@pytest.mark.filterwarnings("ignore:Specified to not")
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_what_was_saved_is_merged_into_the_trained_model(
    name: str, options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    recipe = technique(name, **options)
    trained = Trained(base, tmp_path, recipe).run()
    losses = [entry["loss"] for entry in trained.fit.log]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.05
    expected, untuned = trained.logits(), logits(load_base(base, recipe["base_precision"]))
    assert np.abs(expected - untuned).max() > 0.1
    unmerged = logits(load_adapter(base, recipe["base_precision"], tmp_path / "adapter"))
    np.testing.assert_allclose(unmerged, expected, atol=1e-4)
    whole = merge(base, recipe["base_precision"], tmp_path / "adapter")
    np.testing.assert_allclose(logits(whole), expected, atol=1e-4)
    assert_merged_alike(base, recipe["base_precision"], tmp_path / "adapter", tmp_path)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_pissa_starts_from_the_base_with_its_principal_part_in_the_adapter(
    name: str, base: Path, tmp_path: Path
) -> None:
    started = Trained(base, tmp_path, technique(name, init_lora_weights="pissa", r=4))
    np.testing.assert_allclose(started.logits(), logits(load_base(base, "fp32")), atol=1e-4)
    weight = load_base(base, "fp32").model.layers[0].self_attn.qkv_proj.weight.detach()
    layer = started.model.base_model.model.model.layers[0].self_attn.qkv_proj
    singular = torch.linalg.svdvals(weight)
    left = torch.linalg.svdvals(layer.base_layer.weight)
    torch.testing.assert_close(left[:-4], singular[4:], rtol=1e-4, atol=1e-5)
    right = layer.lora_A["default"].weight
    assert (right.gather(1, right.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("lora", {"init_lora_weights": "pissa"}), ("peft-vera", {}), ("peft-prefix", {}), ("qdora", {})],
    ids=str,
)
def test_a_stopped_run_saves_what_a_whole_one_does(
    name: str, options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    recipe = technique(name, **options)
    whole = Trained(base, tmp_path / "whole", recipe, steps=8).run()
    killed(Trained(base, tmp_path / "stopped", recipe, steps=8).fit, 7)
    kept = load_file(tmp_path / "stopped/work/checkpoint-0000005/model.safetensors")
    assert set(kept) == {name for name, one in whole.model.named_parameters() if one.requires_grad}
    resumed = Trained(base, tmp_path / "stopped", recipe, steps=8).run()
    assert resumed.fit.log == whole.fit.log
    for name in ADAPTER_FILES:
        assert (resumed.out / "adapter" / name).read_bytes() == (whole.out / "adapter" / name).read_bytes()


def test_a_prefix_learns_whatever_the_padding(base: Path, prefixed: Trained) -> None:
    losses = [entry["loss"] for entry in prefixed.fit.log]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.05
    with torch.no_grad():
        alone = [float(answer_loss(prefixed.model, *collate(ROWS, [n], 0, CPU))) for n in range(16)]
        together = float(answer_loss(prefixed.model, *collate(ROWS, list(range(16)), 0, CPU)))
    assert len({len(ids) for ids in ROWS.ids[:16]}) > 3
    assert together == pytest.approx(sum(alone), rel=1e-5)


def test_base_and_prefix_are_what_peft_computes(base: Path, prefixed: Trained) -> None:
    peft = load_adapter(base, "fp32", prefixed.out / "adapter")
    assert type(peft).forward is not type(prefixed.model).forward
    expected = logits(peft)
    np.testing.assert_allclose(prefixed.logits(), expected, atol=1e-5)
    np.testing.assert_allclose(logits(load_base(base, "fp32"), prefixed.out / PREFIX_FILE), expected, atol=1e-5)
    assert np.abs(logits(load_base(base, "fp32")) - expected).max() > 0.1


def test_a_projected_prefix_is_saved_without_its_network(base: Path, tmp_path: Path) -> None:
    options = {"prefix_projection": True, "encoder_hidden_size": 16, "num_virtual_tokens": 4}
    trained = Trained(base, tmp_path, technique("peft-prefix", **options)).run()
    saved = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert {name: tensor.shape for name, tensor in saved.items()} == {"prompt_embeddings": (4, 2 * 2 * 16)}
    write_prefix(tmp_path / PREFIX_FILE, prefix_of(load_adapter(base, "fp32", tmp_path / "adapter")))
    assert [key.shape for key, _ in read_prefix(tmp_path / PREFIX_FILE)] == [(2, 4, 8)] * 2
    np.testing.assert_allclose(logits(load_base(base, "fp32"), tmp_path / PREFIX_FILE), trained.logits(), atol=1e-5)


class Exported:
    """A decoder with past keys and values as optimum exports it, computed by transformers."""

    def __init__(self, model: Any):
        self.model = model.eval()

    @torch.no_grad()
    def run(self, outputs: None, feed: dict[str, np.ndarray], options: None) -> list[np.ndarray]:
        from transformers import DynamicCache

        given = {name: torch.from_numpy(value) for name, value in feed.items()}
        past = [[given.pop(f"past_key_values.{i}.{kind}") for kind in ("key", "value")] for i in range(2)]
        found = self.model(**given, past_key_values=DynamicCache(past), use_cache=True)
        present = [tensor.numpy() for layer in found.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return [found.logits.numpy(), *present]


def exported(model: Any, prefix: Path | None) -> OnnxBackend:
    backend = OnnxBackend.__new__(OnnxBackend)
    backend.shares_within, backend.pads = math.inf, True
    backend.session = Exported(model)
    shape = type("Node", (), {"shape": ["rows", 2, "past", 8]})()
    kinds = [f"{i}.{kind}" for i in range(2) for kind in ("key", "value")]
    backend.past_names = [f"past_key_values.{kind}" for kind in kinds]
    backend.inputs = dict.fromkeys(["input_ids", "attention_mask", "position_ids", *backend.past_names], shape)
    backend.outputs = ["logits", *(f"present.{kind}" for kind in kinds)]
    backend.prefix = read_prefix(prefix) if prefix else []
    backend.virtual_tokens = backend.prefix[0][0].shape[1] if prefix else 0
    return backend


@pytest.mark.parametrize("make", [TorchBackend, exported], ids=["torch", "onnx"])
@pytest.mark.parametrize("with_prefix", [True, False], ids=["prefix", "plain"])
def test_padded_rows_and_single_steps_are_as_whole_rows(
    make: Any, with_prefix: bool, base: Path, prefixed: Trained
) -> None:
    prefix = prefixed.out / PREFIX_FILE if with_prefix else None
    model = load_base(base, "fp32")
    backend = make(model, prefix)
    expected = probe_logits(TorchBackend(model, prefix), ROWS.ids[:8], 4)
    np.testing.assert_allclose(probe_logits(backend, ROWS.ids[:8], 4), expected, atol=1e-5)

    rows = ROWS.ids[:8]
    longest = max(map(len, rows))
    ids = np.stack([np.pad(row, (longest - len(row), 0)) for row in rows]).astype(np.int64)
    mask = np.stack([np.arange(longest) >= longest - len(row) for row in rows]).astype(np.int64)
    padded, _ = backend.forward(ids, None, 4, mask)
    np.testing.assert_allclose(padded[:, -4:].reshape(-1, 64), expected, atol=1e-5)

    _, past = backend.forward(ids[:, :-4], None, 1, mask[:, :-4])
    stepped = []
    for at in range(longest - 4, longest):
        found, past = backend.forward(ids[:, at : at + 1], past, 1, mask[:, : at + 1])
        stepped.append(found[:, -1])
    np.testing.assert_allclose(np.stack(stepped, 1).reshape(-1, 64), expected, atol=1e-5)

    alone = [generate(backend, [prompt], {2}, 6)[0] for prompt in ROWS.prompts[:8]]
    assert generate(backend, ROWS.prompts[:8], {2}, 6) == alone


def test_likelihoods_after_a_prefix_are_the_loss_it_was_trained_on(base: Path, prefixed: Trained) -> None:
    found = answer_nll(TorchBackend(load_base(base, "fp32"), prefixed.out / PREFIX_FILE), ROWS)
    with torch.no_grad():
        loss = float(answer_loss(prefixed.model, *collate(ROWS, list(range(len(ROWS))), 0, CPU)))
    assert found.sum() == pytest.approx(loss, rel=1e-5)


def test_all_but_a_prefix_end_in_one_model() -> None:
    for path in sorted((ROOT / "config/techniques").glob("*.yaml")):
        kind = technique_model(content := read_yaml(path), PLATFORMS)
        if issubclass(kind, Technique):
            assert validated(kind, content, path.stem).merges == (path.stem != "peft-prefix")


@pytest.mark.parametrize("name", FROZEN)
def test_states_are_counted_from_shapes(name: str, base: Path, tmp_path: Path) -> None:
    trained = Trained(base, tmp_path, technique(name), steps=1)
    trained.fit.run()
    found = model_state_bytes(trained.model, trained.optimizer, trained.recipe["engine"])
    trainable, total = trained.model.get_nb_trainable_parameters()
    tensors = [p for p in trained.model.parameters() if p.requires_grad]
    assert found["gradient_bytes"] == 4 * trainable
    # Two moments of each weight, and a step count of each tensor.
    assert found["optimizer_bytes"] == 4 * (2 * trainable + len(tensors))
    linear = 2 * (32 * (32 + 16 + 16) + 32 * 32 + 32 * 128 + 64 * 32)
    rotary = 4 * 4 * 2
    if trained.recipe["base_precision"] == "nf4":
        packed = found["weight_bytes"] - 4 * (total - linear) - rotary
        # Half a byte each, a byte for every 64, and tables for each of the eight layers.
        assert linear / 2 + linear / 64 < packed < linear / 2 + linear / 64 + 8 * 1200
    else:
        projections = 4 * 256 * (64 + 128) if name == "peft-vera" else 0
        assert found["weight_bytes"] == 4 * total + projections + rotary


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("peft-prefix", {"base_precision": "nf4"}, "can't be trained on base_precision nf4"),
        ("qlora", {"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
        ("qlora", {"modules_to_save": ["norm"]}, "modules_to_save needs base_precision: fp32"),
        ("lora", {"init_lora_weights": "olora"}, "init_lora_weights"),
        ("lora", {"init_lora_weights": False}, "init_lora_weights"),
        ("peft-prefix", {"encoder_hidden_size": 8}, "needs prefix_projection: true"),
        ("peft-prefix", {"num_virtual_tokens": 0}, "num_virtual_tokens"),
        ("peft-prefix", {"target_modules": ["o_proj"]}, "target_modules: unknown key"),
        ("peft-vera", {"d_initial": 0}, "d_initial"),
    ],
)
def test_what_can_not_be_trained_is_refused(name: str, change: dict[str, Any], words: str) -> None:
    content = read_yaml(ROOT / f"config/techniques/{name}.yaml")
    (content if "base_precision" in change else content["adapter"]["options"]).update(change)
    with pytest.raises(UserError, match=words):
        validated(Technique, content, "the file")


def test_a_run_of_a_few_steps_measures_and_keeps_no_weights(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    _, *options = command(tmp_path, tmp_path, recipe_of("peft-prefix", steps=3, keep_weights=False))
    run_script(train, *options)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"resources.json", "train.jsonl"}
    resources = read_json(tmp_path / "run/resources.json")
    assert resources["trainable_parameters"] == 20 * 2 * 2 * 16
    assert len(curve(tmp_path)) == 3
    assert resources["ranks"][0]["gradient_bytes"] == 4 * resources["trainable_parameters"]


def test_deepspeed_trains_without_a_compiler_and_a_home(tmp_path: Path) -> None:
    """Its own AdamW and its communication would be compiled on first use, into the home directory."""
    write_inputs(tmp_path)
    # A PATH without a compiler, and a home below a file, where nothing can be written.
    here = {"PATH": str(Path(sys.executable).parent), "HOME": str(tmp_path / "base/manifest.json")}
    recipe = recipe_of("deepspeed", steps=2, keep_weights=False)
    ran = subprocess.run(
        [sys.executable, "scripts/launch.py", "--ranks", "1", *command(tmp_path, tmp_path, recipe)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("CC", "CXX")} | here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(curve(tmp_path)) == 2


def test_fast_paths_change_no_loss_and_are_off_by_a_key_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(tmp_path)
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 128)
    curves = []
    for name, keys in ("fast", {}), ("plain", dict.fromkeys(FAST_PATHS, False)):
        _, *options = command(tmp_path, tmp_path / name, recipe_of("dora", epochs=1, keep_weights=False, **keys))
        run_script(train, *options)
        curves.append(curve(tmp_path / name))
        # What the second run mustn't use.
        monkeypatch.delattr(loss, "_chunked_loss", raising=False)
        monkeypatch.setattr(LightDora, "forward", None)
        monkeypatch.setattr(LightLora, "forward", None)
    fast, plain = curves
    assert fast[-1]["computed_tokens"] < fast[-1]["tokens"] < plain[-1]["computed_tokens"]
    for key in ("loss", "validation_loss"):
        assert [one[key] for one in fast if key in one] == pytest.approx(
            [one[key] for one in plain if key in one], 1e-5
        )


@pytest.mark.parametrize("name", ["full", "dora", "qlora"])
def test_no_training_reads_memory_that_it_has_not_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path)
    limit, saved = train.limit_threads, []

    def limit_and_fill(threads: int) -> None:
        limit(threads)
        # With NaN.
        torch.utils.deterministic.fill_uninitialized_memory = True

    for filled in False, True:
        monkeypatch.setattr(train, "limit_threads", limit_and_fill if filled else limit)
        _, *options = command(tmp_path, tmp_path / str(filled), recipe_of(name, epochs=1))
        run_script(train, *options)
        assert torch.utils.deterministic.fill_uninitialized_memory is filled
        saved.append(weights(tmp_path / str(filled)))
    assert saved[0] == saved[1]


def test_each_technique_that_is_tried_on_a_gpu_is_trained_by_train_py() -> None:
    assert {"full", "lora-zero3", *FROZEN} < set(TECHNIQUES)
    assert all("engine" in recipe_of(name) for name in TECHNIQUES)


def test_an_experiment_sets_the_ranks_of_this_machine() -> None:
    config = read_yaml(ROOT / "config/config.yaml")
    own = Recipes(config, ROOT).training_recipe("phi3-1m", "zero3", 1)
    wider = Recipes(config | {"ranks": {"zero3": 4}}, ROOT).training_recipe("phi3-1m", "zero3", 1)
    assert (own["world_size"], wider["world_size"]) == (2, 4)
    assert wider == own | {"world_size": 4}
    with pytest.raises(UserError, match="ranks: zero9 is none of this experiment's techniques"):
        Recipes(config | {"ranks": {"zero9": 4}}, ROOT)
    hosted = read_yaml(ROOT / "config/experiments/hosted.yaml")["techniques"][0]
    with pytest.raises(UserError, match=f"ranks: {hosted} is trained by a service"):
        read_matrix(config | {"techniques": ["lora", hosted], "ranks": {hosted: 2}}, ROOT)


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_bf16_computes_less_exactly_and_trains_in_fp32(name: str, base: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = technique(name) | {"compute_precision": precision}
        accelerator = accelerator_for(recipe, 0)
        torch.manual_seed(1)
        model = attach(load_base(base, "fp32" if name == "lora" else "nf4", precision), recipe["adapter"])
        model, optimizer = accelerator.prepare(model, optimizer_for(model, recipe))
        loss = answer_loss(model, *collate(ROWS, list(range(16)), 0, accelerator.device))
        accelerator.backward(loss)
        optimizer.step()
        losses[precision] = float(loss)
        kept = [p for p in model.parameters() if p.requires_grad] + [s["exp_avg"] for s in optimizer.state.values()]
        assert {tensor.dtype for tensor in kept} == {torch.float32}
        AcceleratorState._reset_state(True)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]
