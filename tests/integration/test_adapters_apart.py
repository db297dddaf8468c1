"""One base and several adapters: each switched on computes what its merged model does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.export_environment import in_export_environment
from support.measurements import run_script
from support.models import tiny_phi3
from tokenizers import Tokenizer
from tokenizers.models import BPE

import check_adapter
import export_adapter
from snaketune.config.export import Genai
from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json
from snaketune.core.layout import ADAPTER_FILE, INPUTS_FILE, MODEL_FILES
from snaketune.data.chat_template import CHAT_TEMPLATE, END, SPECIAL_TOKENS
from snaketune.data.tokens import Rows, write_rows
from snaketune.export.runtime_adapters.files import check_taken, parts_of_all
from snaketune.inference.adapter_backend import GenaiAdapterBackend, OnnxAdapterBackend, adapter_backend
from snaketune.inference.probe import write_probe
from snaketune.inference.torch_backend import TorchBackend
from snaketune.training.adapters import attach, merge
from snaketune.training.base_model import load_base

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
LAYERS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
LORA = {"r": 4, "lora_alpha": 16, "target_modules": LAYERS}
RSLORA = {"r": 3, "lora_alpha": 4, "use_rslora": True, "target_modules": LAYERS[:2]}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "options": LORA},
    "rslora": {"type": "lora", "options": {**LORA, **RSLORA}},
    "dora": {"type": "lora", "options": {**LORA, "use_dora": True}},
    "ia3": {"type": "ia3", "options": {"target_modules": LAYERS, "feedforward_modules": ["down_proj"]}},
    "vera": {"type": "vera", "options": {"r": 8, "target_modules": LAYERS}},
}
IDS = np.random.default_rng(0).integers(3, 64, (2, 12))
PROBE = {"rows": 2, "positions": 4}


def in_export(*command: object) -> None:
    ran = in_export_environment(*command)
    assert ran.returncode == 0, ran.stderr


def call(script: ModuleType, **options: object) -> None:
    run_script(script, *(part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)))


class Base:
    """A random model with the switchable form of its export, and adapters on it with random weights."""

    def __init__(self, path: Path):
        self.directory, self.switchable, self.adapters = path / "base", path / "switchable", path / "adapters"
        # onnxruntime-genai asks for heads of a multiple of 16, and its builder takes a layer with as many outputs as
        # there are tokens for the head.
        sizes = {"vocab_size": 67, "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.1}
        tiny_phi3(64, **sizes).save_pretrained(self.directory)
        letters = [*SPECIAL_TOKENS, *map(chr, range(65, 132 - len(SPECIAL_TOKENS)))]
        Tokenizer(BPE({letter: n for n, letter in enumerate(letters)}, [])).save(str(self.directory / MODEL_FILES[3]))
        tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "chat_template": CHAT_TEMPLATE}
        write_json(self.directory / MODEL_FILES[4], tokenizer)
        manifest.record(self.directory, {}, [], [self.directory / name for name in MODEL_FILES])
        both = ("--model-directory", self.directory, "--output-directory", path / "onnx")
        in_export("scripts/export_onnx.py", "--recipe", "{}", *both)
        self.make_switchable(path / "onnx", self.switchable)

    def make_switchable(self, model: Path, out: Path) -> None:
        in_export(
            "scripts/export_base_for_adapters.py",
            *("--recipe", json.dumps({"parts": parts_of_all(ADAPTERS.values())})),
            *("--base-directory", self.directory, "--model-directory", model, "--output-directory", out),
        )

    def train(self, name: str, adapter: dict[str, Any], base_precision: str = "fp32") -> Path:
        """Save an adapter whose every weight is random: none is at its start, which changes nothing."""
        run = self.adapters / name
        torch.manual_seed(len(name))
        model = attach(load_base(self.directory, "fp32"), adapter)
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.add_(torch.randn_like(parameter) * 0.15)
        model.save_pretrained(str(run / "adapter"))
        written = [path for path in (run / "adapter").iterdir() if path.suffix in (".json", ".safetensors")]
        manifest.record(run, {"base_precision": base_precision}, [self.directory / "manifest.json"], written)
        return run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(tmp_path_factory.mktemp("apart"))


def export(base: Base, run: Path) -> Path:
    paths = {"base_directory": base.directory, "switchable_directory": base.switchable}
    call(export_adapter, recipe="{}", **paths, adapter_directory=run / "adapter", output_directory=run / "exported")
    return run / "exported" / ADAPTER_FILE


@pytest.fixture(scope="module")
def exported(base: Base) -> dict[str, Path]:
    return {name: export(base, base.train(name, adapter)) for name, adapter in ADAPTERS.items()}


def logits(backend: Any) -> np.ndarray:
    """Of a prompt and of what follows it, so that the cache is the adapter's too."""
    first, past = backend.forward(IDS[:, :8], None, 8)
    second, _ = backend.forward(IDS[:, 8:], past, 4)
    return np.concatenate([first[:, -8:], second[:, -4:]], axis=1)


@pytest.fixture(scope="module")
def expected(base: Base) -> dict[str | None, np.ndarray]:
    """By torch: of each merged model, and of the base as None."""
    merged = {name: merge(base.directory, "fp32", base.adapters / name / "adapter") for name in ADAPTERS}
    models = {None: load_base(base.directory, "fp32"), **merged}
    return {name: logits(TorchBackend(model)) for name, model in models.items()}


@pytest.fixture(scope="module")
def backend(base: Base, exported: dict[str, Path]) -> OnnxAdapterBackend:
    made = adapter_backend(base.switchable / "model.onnx", 1)
    assert isinstance(made, OnnxAdapterBackend)
    for adapter in exported.values():
        made.load(adapter)
    return made


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_beside_its_base_is_the_merged_model(
    name: str, backend: OnnxAdapterBackend, exported: dict[str, Path], expected: dict[str | None, np.ndarray]
) -> None:
    backend.switch(exported[name])
    assert np.abs(expected[name] - expected[None]).max() > 0.05
    np.testing.assert_allclose(logits(backend), expected[name], atol=1e-5)


def test_switching_leaves_nothing_behind_and_the_session_as_it_is(
    backend: OnnxAdapterBackend, exported: dict[str, Path], expected: dict[str | None, np.ndarray]
) -> None:
    session, seen = backend.session, {}
    for name in ("lora", "ia3", None, "lora", "dora", "rslora", None, "vera", "lora"):
        backend.switch(exported[name] if name else None)
        found = logits(backend)
        np.testing.assert_allclose(found, expected[name], atol=1e-5)
        assert np.array_equal(found, seen.setdefault(name, found))
        assert backend.session is session


def test_an_adapter_is_a_small_share_of_its_base_and_the_same_bytes_again(
    base: Base, exported: dict[str, Path]
) -> None:
    before = exported["dora"].read_bytes()
    records = exported["dora"].with_name("manifest.json").read_bytes()
    assert export(base, base.adapters / "dora").read_bytes() == before
    assert exported["dora"].with_name("manifest.json").read_bytes() == records
    assert exported["ia3"].stat().st_size < 0.1 * (base.switchable / "model.onnx_data").stat().st_size


def change(base: Base, run: Path, tensors: Callable[[dict[str, np.ndarray]], object] = id, **config: object) -> None:
    """Alter a saved adapter, as no training would."""
    weights, configuration = (run / "adapter" / name for name in ("adapter_model.safetensors", "adapter_config.json"))
    found = load_file(weights)
    tensors(found)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in found.items()}, weights)
    write_json(configuration, {**read_json(configuration), **config})
    manifest.record(run, {"base_precision": "fp32"}, [base.directory / "manifest.json"], [weights, configuration])


FIRST = "base_model.model.model.layers.0.self_attn.qkv_proj"
A, B = f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"
ODD = np.zeros((4, 32), np.float32)


@pytest.mark.parametrize(
    ("name", "altered", "words"),
    [
        ("lora", {"tensors": lambda t: t.update({A: t[A].T})}, "qkv_proj.lora_A.weight is [32, 4], expected [4, 32]"),
        ("lora", {"tensors": lambda t: t.update({B: t[B][:7]})}, "qkv_proj.lora_B.weight is [7, 4], expected [64, 4]"),
        ("lora", {"tensors": lambda t: t.pop(B)}, "qkv_proj.lora_B.weight is missing"),
        ("lora", {"tensors": lambda t: [t.pop(A), t.pop(B)]}, "nothing is there for model.layers.0.self_attn.qkv_proj"),
        ("lora", {"tensors": lambda t: t.update({f"{FIRST}.lora_B.bias": ODD})}, "lora_B.bias can't be switched"),
        ("lora", {"tensors": lambda t: t.update({f"{FIRST}x.lora_A.weight": ODD})}, "is of no layer of the base"),
        ("lora", {"rank_pattern": {"o_proj": 2}}, "LORA with rank_pattern can't be switched"),
        ("lora", {"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING can't be switched"),
        ("ia3", {"feedforward_modules": []}, "down_proj.ia3_l is [1, 64], expected [32, 1]"),
        ("vera", {"save_projection": False}, "there is only a seed (save_projection: false)"),
    ],
    ids=str,
)
def test_an_adapter_that_does_not_fit_is_refused(
    name: str, altered: dict[str, Any], words: str, base: Base, exported: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(base.adapters / name, tmp_path / "run", ignore=shutil.ignore_patterns("exported"))
    change(base, tmp_path / "run", **altered)
    with pytest.raises(UserError) as error:
        export(base, tmp_path / "run")
    assert words in str(error.value)
    assert not (tmp_path / "run/exported").exists()


def test_an_adapter_of_other_layers_than_the_base_takes_is_refused(base: Base) -> None:
    check_taken(["model.layers.0.mlp.down_proj.lora_A"], base.switchable)
    with pytest.raises(UserError, match=r"has no input lm_head\.lora_A: it was made for other target modules"):
        check_taken(["model.layers.0.mlp.down_proj.lora_A", "lm_head.lora_A"], base.switchable)


def test_an_adapter_of_another_base_is_refused(base: Base, exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(base.adapters / "lora", tmp_path / "run")
    content = manifest.read(tmp_path / "run/manifest.json")
    write_json(tmp_path / "run/manifest.json", {**content, "inputs": {"another/manifest.json": "0" * 64}})
    with pytest.raises(UserError, match="was made from another base than"):
        export(base, tmp_path / "run")
    content = manifest.read(tmp_path / "run/exported/manifest.json")
    write_json(tmp_path / "run/exported/manifest.json", {**content, "inputs": {"another/manifest.json": "0" * 64}})
    with pytest.raises(UserError, match="was made for another base"):
        OnnxAdapterBackend(base.switchable / "model.onnx", 1).load(tmp_path / "run/exported" / ADAPTER_FILE)


def test_an_adapter_of_a_quantized_base_is_refused(base: Base) -> None:
    run = base.train("qlora", ADAPTERS["lora"], "nf4")
    with pytest.raises(UserError, match="was trained on the nf4 form of"):
        export(base, run)


def test_a_changed_adapter_file_is_refused(base: Base, exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exported["lora"].parent, tmp_path / "exported")
    with (tmp_path / "exported" / ADAPTER_FILE).open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="has changed since it was made"):
        OnnxAdapterBackend(base.switchable / "model.onnx", 1).load(tmp_path / "exported" / ADAPTER_FILE)


def test_the_proof_of_a_run(base: Base, exported: dict[str, Path], tmp_path: Path) -> None:
    rows = Rows([row.astype(np.int32) for row in IDS], [np.ones(12, dtype=bool)] * 2)
    write_rows(tmp_path / "test.safetensors", rows)
    manifest.record(tmp_path, {}, [], [tmp_path / "test.safetensors"])
    merged = merge(base.directory, "fp32", base.adapters / "dora/adapter")
    for name, model in (("merged", merged), ("base", load_base(base.directory, "fp32"))):
        write_probe(tmp_path / f"{name}.safetensors", TorchBackend(model), rows, PROBE)
    recipe = {"probe": PROBE, "threads": 1, "largest_logit_difference": 1e-4, "gate": "fail"}
    options = {
        "recipe": json.dumps(recipe),
        "model": base.switchable / "model.onnx",
        "tokens_directory": tmp_path,
        "merged_logits": tmp_path / "merged.safetensors",
        "base_logits": tmp_path / "base.safetensors",
        "output": tmp_path / "parity.json",
    }
    call(check_adapter, adapter=exported["dora"], **options)
    found = read_json(tmp_path / "parity.json")
    assert found["passed"]
    assert found["positions"] == 8
    assert max(found["largest_logit_difference"].values()) < 1e-5
    (tmp_path / "parity.json").unlink()
    with pytest.raises(UserError, match="largest logit difference from the merged model"):
        call(check_adapter, adapter=exported["lora"], **options)
    assert not (tmp_path / "parity.json").exists()


def test_onnxruntime_genai_switches_to_the_same_files(
    base: Base, exported: dict[str, Path], expected: dict[str | None, np.ndarray], tmp_path: Path
) -> None:
    recipe = json.dumps({"method": "genai", "options": Genai(weights="fp32").model_dump()})
    merged = ("--model-directory", base.directory, "--output-directory", tmp_path / "built")
    in_export("scripts/build_genai.py", "--recipe", recipe, *merged)
    base.make_switchable(tmp_path / "built", tmp_path / "switchable")
    backend = adapter_backend(tmp_path / "switchable/model.onnx", 1)
    assert isinstance(backend, GenaiAdapterBackend)
    for adapter in exported.values():
        backend.load(adapter)
    model = backend.model
    for name in ("lora", "ia3", None, "lora", "dora", "rslora", None, "vera"):
        backend.switch(exported[name] if name else None)
        np.testing.assert_allclose(logits(backend), expected[name], atol=1e-5)
    assert backend.model is model


SPLIT = """
import sys
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
sys.path.insert(0, "scripts")
from snaketune.export.runtime_adapters.graph import make_switchable
random = np.random.default_rng(0)
value = helper.make_tensor_value_info
halves = [random.normal(size=(4, 6)).astype(np.float32) for _ in range(2)]
nodes = [
    helper.make_node("MatMul", ["x", name], [f"{name}_out"], name=f"/model/layers.0/mlp/{name}/MatMul")
    for name in ("gate_proj", "up_proj")
]
graph = helper.make_graph(
    [*nodes, helper.make_node("Concat", ["gate_proj_out", "up_proj_out"], ["y"], axis=-1)],
    "halves", [value("x", TensorProto.FLOAT, ["rows", 4])], [value("y", TensorProto.FLOAT, ["rows", 12])],
    [numpy_helper.from_array(half, name) for half, name in zip(halves, ("gate_proj", "up_proj"))],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
make_switchable(model, {"gate_up_proj": ["input_scale", "lora_A", "lora_B", "output_scale"]})
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
np.save(sys.argv[2], np.concatenate(halves, axis=1))
"""


def test_a_layer_that_another_exporter_cut_takes_the_same_adapter(tmp_path: Path) -> None:
    in_export("-c", SPLIT, tmp_path / "cut.onnx", tmp_path / "weight.npy")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tmp_path / "cut.onnx", options)
    random, weight = np.random.default_rng(1), np.load(tmp_path / "weight.npy")
    x, a, b, s, t = (random.normal(size=n).astype(np.float32) for n in ((3, 4), (4, 2), (2, 12), 12, 4))
    module = "model.layers.0.mlp.gate_up_proj"
    fed = {f"{module}.lora_A": a, f"{module}.lora_B": b, f"{module}.output_scale": s, f"{module}.input_scale": t}
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weight, atol=1e-5)
    np.testing.assert_allclose(session.run(None, {"x": x, **fed})[0], s * ((t * x) @ (weight + a @ b)), atol=1e-5)


def test_the_base_takes_what_any_of_the_adapters_needs(base: Base) -> None:
    only = parts_of_all([ADAPTERS["rslora"], ADAPTERS["ia3"]])
    assert only == {
        "down_proj": ["input_scale"],
        "gate_up_proj": ["output_scale"],
        "o_proj": ["lora_A", "lora_B", "output_scale"],
        "qkv_proj": ["lora_A", "lora_B", "output_scale"],
    }
    shapes = read_json(base.switchable / INPUTS_FILE)
    assert shapes["model.layers.1.mlp.down_proj.lora_A"] == [64, None]
    assert shapes["model.layers.1.mlp.down_proj.output_scale"] == [32]
    assert len(shapes) == 2 * (4 * 3 + 1)
