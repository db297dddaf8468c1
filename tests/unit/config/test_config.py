"""Every fault of config/ is found before a job starts, in one message that names the key."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from snaketune.config import matrix
from snaketune.config.matrix import Matrix
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml
from snaketune.dag.job_params import JobParams
from snaketune.dag.recipes import Recipes
from snaketune.platforms.registry import SCHEMAS, read_matrix
from write_schemas import KINDS, REFERENCE, reference_text, schema_text

ROOT = Path(__file__).parents[3]
CONFIG = read_yaml(ROOT / "config/config.yaml")
YAML_FILES = sorted((ROOT / "config").rglob("*.yaml"))
TECHNIQUE = {"description": "for a test", "learning_rate": 1e-3}
MODEL = {"description": "for a test", "licence": "none"}
SCENARIO = read_yaml(ROOT / "config/scenarios/classification.yaml")
GGUF = {"model_type": "llama", "gguf": {"file": "no.gguf"}}
LLAMA = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]


def peft(method: str, **options: Any) -> dict[str, Any]:
    return TECHNIQUE | {"adapter": {"type": method, "options": options}}


def mixed(*files: dict[str, Any]) -> dict[str, Any]:
    return SCENARIO | {"source": {"path": list(files)}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a copy of config/ to break."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def write(root: Path, name: str, content: Any) -> None:
    (root / "config" / f"{name}.yaml").write_text(yaml.safe_dump(content))


def fault(kind: str, content: Any) -> str:
    with pytest.raises(UserError) as raised:
        validated(SCHEMAS[kind], content, "the file")
    assert str(raised.value).startswith("the file:")
    return str(raised.value)


def test_further_seeds_of_one_run_add_its_cells_alone_and_nothing_to_others() -> None:
    further = {"more_seeds": {"phi3-1m": {"classification": {"lora": [1, 2, 4]}}}}
    before, after = (Recipes(config, ROOT) for config in (CONFIG, CONFIG | further))
    added = set(after.cells) - set(before.cells)
    assert added == {("phi3-1m", "classification", "lora", seed) for seed in (2, 4)}
    assert set(before.cells) < set(after.cells)
    assert "more_seeds" not in before.parameters()["experiment"]


@pytest.mark.parametrize("path", sorted((ROOT / "config/experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_is_valid_over_the_default(path: Path) -> None:
    read_matrix(CONFIG | read_yaml(path), ROOT)


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_yaml_file_names_its_schema_for_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found
    assert (path.parent / found[1]).resolve() in {ROOT / f"config/schemas/{kind}.schema.json" for kind in KINDS}


def test_the_schemas_are_those_of_the_typed_models() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "config/schemas").iterdir()}
    assert written == {f"{kind}.schema.json": schema_text(kind) for kind in KINDS}, "run `make schemas`"
    assert (ROOT / REFERENCE).read_text(encoding="utf-8") == reference_text(), "run `make schemas`"


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("experiment", CONFIG | {"seed": [1]}, ["seed: unknown key", "did you mean seeds?"]),
        ("experiment", CONFIG | {"training": {"epoch": 1}}, ["training.epoch: unknown key", "did you mean epochs?"]),
        ("experiment", CONFIG | {"training": {"epochs": "three"}}, ["training.epochs", "integer", "'three'"]),
        ("experiment", CONFIG | {"training": {"epochs": 0}}, ["training.epochs", "greater than 0"]),
        ("experiment", CONFIG | {"seeds": [1, 1]}, ["seeds names 1 twice"]),
        ("experiment", CONFIG | {"techniques": ["base"]}, ["base is the untuned model"]),
        ("experiment", CONFIG | {"precisions": ["int8"]}, ["precisions must include fp32"]),
        ("experiment", {"models": ["phi3-1m"]}, ["scenarios: missing", "corpus: missing"]),
        ("experiment", CONFIG | {"parity": {"budgets": {"adapter-mergd": {"kl_divergence": 1}}}}, ["adapter-mergd"]),
        ("technique", TECHNIQUE | {"adaptor": None}, ["adaptor: unknown key", "did you mean adapter?"]),
        ("technique", TECHNIQUE | {"engine": {"zero_stage": 2}}, ["engine", "need type: deepspeed"]),
        ("technique", TECHNIQUE | {"engine": {"offload": "cpu"}}, ["engine", "need type: deepspeed"]),
        ("technique", TECHNIQUE | {"base_precision": "nf4"}, ["nf4 needs an adapter"]),
        ("technique", TECHNIQUE | {"base_precision": "int5"}, ["base_precision: ", "nf4|export:", "'int5'"]),
        ("technique", TECHNIQUE | {"base_precision": "export:int4"}, ["export:int4 needs an adapter"]),
        ("technique", TECHNIQUE | {"learning_rate": {"phi3-1m": 0.1}}, ["learning_rate needs the key `default`"]),
        ("technique", TECHNIQUE | {"learning_rate": -1}, ["learning_rate", "greater than 0", "-1"]),
        (
            "technique",
            peft("lorra"),
            ["adapter.other.type: peft has no such method; did you mean lora? (found 'lorra')"],
        ),
        ("technique", peft("poly"), ["adapter.other.type: poly can't be trained here: it needs a task id"]),
        (
            "technique",
            peft("loha", alpa=8),
            ["adapter.other.options: alpa: unknown option of loha; did you mean alpha?"],
        ),
        ("technique", peft("loha", r="8"), ["options: r: should be a valid integer (found '8')"]),
        ("technique", peft("miss", init_weights="cat"), ["valid boolean, or should be 'bat' or 'mini' (found 'cat')"]),
        ("technique", peft("ln_tuning", target_modules=["o_proj"]), ["ln_tuning; it chooses its own layers: leave it"]),
        ("technique", peft("p_tuning"), ["adapter.other.options: num_virtual_tokens: missing"]),
        (
            "technique",
            peft("hira") | {"base_precision": "nf4"},
            ["hira needs a base in floats and engine.type: torch"],
        ),
        ("technique", peft("beft") | {"base_precision": "bf16"}, ["beft needs its fp32 base at inference"]),
        (
            "technique",
            TECHNIQUE | {"adapter": {"type": "lora", "options": {"target_modules": ["o_proj"], "rank": 8}}},
            ["options.rank: unknown key"],
        ),
        (
            "technique",
            TECHNIQUE
            | {"adapter": {"type": "ia3", "options": {"target_modules": ["a"], "feedforward_modules": ["b"]}}},
            ["feedforward_modules b must also be in target_modules"],
        ),
        ("model", MODEL | {"hub": "owner/name"}, ["hub needs revision"]),
        ("model", MODEL | {"hub": "owner/name", "revision": "main"}, ["revision", "'main'"]),
        ("model", MODEL | {"hub": "owner/na/me", "revision": "0" * 40}, ["hub", "owner/na/me"]),
        ("model", MODEL | {"hub": "owner/name", "revision": "0" * 40, "path": "here"}, ["exactly one of"]),
        ("model", MODEL, ["exactly one of build, hub, path"]),
        ("model", MODEL | {"gguf": {"file": "a.gguf", "package": "a==1"}}, ["gguf: package needs sha256"]),
        ("model", MODEL | {"gguf": {"file": "a.gguf"}}, ["gguf needs model_type"]),
        ("scenario", SCENARIO | {"answer": "{label} {other}"}, ["answer may contain"]),
        ("scenario", SCENARIO | {"split": {"validation": 0.5, "test": 0.5}}, ["split", "must leave rows"]),
        ("scenario", mixed({"path": "a.csv", "weight": 1}, {"path": "b.csv"}), ["give every file a weight, or none"]),
        ("scenario", mixed({"path": "a.csv"}, {"path": "a.csv"}), ["path lists a file twice"]),
        ("scenario", mixed({"path": "a.csv", "weight": 0}, {"path": "b.csv"}), ["weight", "greater than 0"]),
        ("export", {"description": "x", "method": "int8"}, ["'int8'", "'dynamic-int8'"]),
        (
            "export",
            {"description": "x", "method": "genai", "options": {"weights": "fp32", "algorithm": "k_quant"}},
            ["fp32 isn't quantized", "leave out algorithm"],
        ),
        (
            "export",
            {"description": "x", "method": "weight-only-int4", "options": {"algorithm": "nf4"}},
            ["nf4 has no zero points", "accuracy_level: 1"],
        ),
        ("technique", ["a list"], ["expected keys and values, found list"]),
        ("technique", None, ["expected keys and values"]),
    ],
)
def test_a_fault_is_named(kind: str, content: Any, words: list[str]) -> None:
    message = fault(kind, content)
    assert [word for word in words if word not in message] == [], message


def test_all_faults_of_a_file_come_in_one_message() -> None:
    message = fault("technique", {"learning_rate": 0, "world_size": 0, "wrong": 1})
    assert [key for key in ("description", "learning_rate", "world_size", "wrong") if key not in message] == []


@given(st.text().filter(lambda key: key not in CONFIG | CONFIG["training"]), st.none() | st.integers() | st.text())
def test_any_extra_key_is_refused_by_name(key: str, value: object) -> None:
    assert f"{key}: unknown key" in fault("experiment", CONFIG | {key: value})
    assert f"training.{key}: unknown key" in fault("experiment", CONFIG | {"training": {key: value}})


KEYS = sorted({key for kind in KINDS for key in re.findall(r'"(\w+)":', schema_text(kind))})
CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["lora", "torch", "nf4"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.sampled_from(sorted(SCHEMAS)), CONTENT)
def test_any_content_is_valid_or_a_users_error(kind: str, content: object) -> None:
    try:
        validated(SCHEMAS[kind], content, "the file")
    except UserError as error:
        assert str(error).startswith("the file:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", "line 3: not YAML"),
        ("a: !!python/object:os.system x\n", "line 1: not YAML"),
        ("a: \x00\n", "not YAML"),
        ("a: 2024-99-99\n", "not YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' appears twice, first in line 1; keep one"),
        ("a:\n- {b: 1}\n- c: 1\n  d: {e: 1,\n  'e': 2}\n", "line 5: the key 'e' appears twice, first in line 4"),
        ('{"a": 1,\n"a": 2}', "line 2: the key 'a' appears twice"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"file\.yaml.*{message}"):
        read_yaml(path)


def test_a_key_may_override_a_merged_one_and_stand_in_other_mappings(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: &a {x: 1, y: &b {x: 2}}\nb: {<<: *a, x: 3, z: *b}\nc: {d: {<<: *a, x: 4}}\n")
    assert read_yaml(path)["b"] == {"x": 3, "y": {"x": 2}, "z": {"x": 2}}
    path.write_text("")
    assert read_yaml(path) is None


def save_weights(directory: Path, names: list[str], config: str = "{}") -> None:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(config)
    tensors = {f"model.layers.0.self_attn.{name}.weight": np.zeros((2, 2), np.float32) for name in names}
    save_file(tensors | {"model.norm.weight": np.zeros(2, np.float32)}, directory / "model.safetensors")


def lora(targets: Any) -> dict[str, Any]:
    return TECHNIQUE | {"adapter": {"type": "lora", "options": {"target_modules": targets}}}


def local(name: str) -> dict[str, Any]:
    return MODEL | {"path": f"models/{name}"}


def hub(model_type: str) -> dict[str, Any]:
    return MODEL | {"model_type": model_type, "hub": "a/b", "revision": 40 * "0"}


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("techniques", ["qlorra"], r"no technique 'qlorra'.*did you mean qlora\?"),
        ("techniques", ["zzz"], r"no technique 'zzz'.*there are deepspeed, dora, full, .*, lora"),
        ("more_seeds", {"phi3-1m": {"classification": {"dora-2": [2]}}}, "dora-2 is none of this .*'s techniques"),
        ("parity", {"budgets": {"onnx-fp32-int8": {"smallest_stop_agreement": 1}}}, r"int8\.smallest_stop_.*: only a"),
        (
            "evaluation",
            {"precision": "bf16"},
            r"exports are compared with a model at fp32, not bf16: set `precisions: \[\]`",
        ),
        ("parity", {"budgets": {"onnx-fp32-int9": {}}}, r"no conversion step onnx-fp32-int9, .*/exports/int9\.yaml"),
    ],
)
def test_what_an_experiment_names_is_there(root: Path, key: str, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Matrix(CONFIG | {key: content}, root)


@pytest.mark.parametrize(
    ("export", "changes", "message"),
    [
        (
            "int5",
            {},
            r"lora-int4\.yaml: base_precision: export:int5: there is no config/exports/int5\.yaml; .* on genai-int4, int4, ",
        ),
        (
            "int8",
            {},
            r"int8 isn't weight-only .*\(its method is dynamic-int8\).*; genai-int4, int4, .*int8-block, nf4 can$",
        ),
        ("genai-fp32", {}, "genai-fp32 isn't weight-only"),
        ("int4", {"precisions": ["fp32", "int8"]}, "int4 isn't exported: add it to `precisions`"),
    ],
)
def test_an_export_that_adapters_cant_be_trained_on_is_one_message(
    root: Path, export: str, changes: Any, message: str
) -> None:
    content = read_yaml(root / "config/techniques/lora-int4.yaml")
    write(root, "techniques/lora-int4", content | {"base_precision": f"export:{export}"})
    with pytest.raises(UserError, match=message) as raised:
        Matrix(CONFIG | {"techniques": ["lora-int4"]} | changes, root)
    assert "\n" not in str(raised.value)


def test_an_adapter_trained_on_an_export_has_that_one_and_fp32_alone() -> None:
    matrix = Matrix(CONFIG | {"techniques": ["lora", "lora-int4"], "precisions": ["fp32", "int8", "int4"]}, ROOT)
    assert matrix.precisions_of("lora") == ["fp32", "int8", "int4"]
    assert matrix.precisions_of("lora-int4") == ["fp32", "int4"]


def test_what_only_linux_can_train_is_left_out_elsewhere_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"techniques": ["zero3", "lora", "deepspeed"], "seeds": [1], "ranks": {"lora": 2, "zero3": 2}}
    asked["more_seeds"] = {"phi3-1m": {"classification": {"lora": [2], "zero3": [2]}}}
    here = Matrix(CONFIG | asked, ROOT)
    assert (here.left_out, list(here.techniques)) == ("", asked["techniques"])
    monkeypatch.setattr(matrix.sys, "platform", "darwin")
    there = read_matrix(CONFIG | asked, ROOT)
    told = "DeepSpeed runs on Linux only (WSL is Linux), and this is darwin: zero3, deepspeed"
    assert there.left_out == f"{told} left out"
    assert list(there.techniques) == there.experiment.techniques == ["lora"]
    assert there.experiment.ranks == {"lora": 2}
    assert there.experiment.seeds_of("phi3-1m", "classification", "lora") == [1, 2]
    with pytest.raises(
        UserError, match=re.escape(f"techniques: {told} can't be trained here, and the experiment has no other")
    ):
        Matrix(CONFIG | {"techniques": ["zero3", "deepspeed"]}, ROOT)
    kaito = read_matrix(CONFIG | {"techniques": ["zero3", "kaito-lora"], "models": ["phi-4-mini-instruct"]}, ROOT)
    assert list(kaito.techniques) == ["kaito-lora"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"techniques/mine": lora(LLAMA)},
            r"config/techniques/mine\.yaml: .*: q_proj, .*, up_proj match no module of phi3",
        ),
        ({"techniques/mine": lora(LLAMA)}, r"phi3-1m, .* it has down_proj, .*, qkv_proj \(Phi-3 fuses"),
        (
            {"techniques/mine": lora(LLAMA), "models/mine": local("here")},
            r"match no module of mine.*it has query, value",
        ),
        ({"models/mine": local("quantized")}, r"config/models/mine\.yaml: path: .*quantized: .* quantized \(gptq\)"),
        (
            {"techniques/mine": peft("hira", target_modules=LLAMA)},
            r"mine\.yaml: .*: q_proj, .* match no module of phi3",
        ),
        (
            {"techniques/mine": peft("lora", modules_to_save=["norm", "head"])},
            r"mine\.yaml: adapter\.options\.modules_to_save: lm_head of phi3-1m is tied: embeddings and head share",
        ),
        (
            {"techniques/mine": peft("beft")},
            r"mine\.yaml: adapter\.type: peft can't merge beft .* has no ONNX file: leave mine out, or set `precisions",
        ),
        ({"models/mine": local("none")}, r"config/models/mine\.yaml: path: models/none/config\.json: no such file"),
        ({"models/mine": local("a{b}")}, r"config/models/mine\.yaml: path: models/a{b}.*: Snakemake reads braces"),
        ({"models/mine": MODEL | GGUF}, r"models/mine\.yaml: gguf\.file: no\.gguf: no such file"),
        ({"scenarios/mine": SCENARIO | {"source": {"path": "no.csv"}}}, r"mine\.yaml: source\.path: no\.csv: no such"),
        ({"scenarios/mine": SCENARIO | {"source": {"path": {"train": "{b}"}}}}, r"source\.path: {b}: Snakemake reads"),
        ({"models/mine": hub("phi")}, r"peft-ia3\.yaml: .*feedforward_modules: down_proj must also be .* fc2 in mine"),
        (
            {"models/mine": hub("gpt2")},
            r"lora\.yaml: adapter\.options\.target_modules: .*mine.*gpt2.* all-linear knows",
        ),
        ({"models/mine": hub("gpt2"), "techniques/mine": lora({"phi3": ["o_proj"]})}, r"mine\.yaml: .*mine.*gpt2"),
    ],
)
def test_what_the_files_of_an_experiment_name_is_there(root: Path, files: dict[str, Any], message: str) -> None:
    save_weights(root / "models/here", ["query", "value"])
    save_weights(root / "models/quantized", ["query"], '{"quantization_config": {"quant_method": "gptq"}}')
    for name, content in files.items():
        write(root, name, content)
    with pytest.raises(UserError, match=message):
        Matrix(CONFIG | {name.split("/")[0]: ["mine"] for name in files}, root)


def test_a_local_model_that_has_the_modules_is_valid(root: Path) -> None:
    save_weights(root / "models/mine", LLAMA)
    write(root, "models/mine", local("mine"))
    write(root, "techniques/mine", lora(LLAMA))
    Matrix(CONFIG | {"models": ["mine"], "techniques": ["mine"]}, root)


def test_a_learning_rate_is_the_models_own_or_the_default(root: Path) -> None:
    write(root, "techniques/mine", TECHNIQUE | {"learning_rate": {"default": 0.5, "phi3-1m": 0.25}})
    shutil.copyfile(root / "config/models/phi3-1m.yaml", root / "config/models/other.yaml")
    matrix = Recipes(CONFIG | {"models": ["phi3-1m", "other"], "techniques": ["mine"]}, root)
    assert [matrix.training_recipe(model, "mine", 1)["learning_rate"] for model in matrix.models] == [0.25, 0.5]


def test_all_linear_means_the_layers_of_each_family(root: Path) -> None:
    write(root, "models/other", MODEL | {"model_type": "llama", "gguf": {"file": "config/config.yaml"}})
    write(root, "techniques/mapped", lora({"phi3": ["o_proj"], "llama": ["q_proj"]}))
    names = ["lora", "peft-ia3", "mapped"]
    matrix = Recipes(CONFIG | {"models": ["phi3-1m", "other"], "techniques": names}, root)
    fetched = json.loads(JobParams(matrix, ROOT).fetched_model(SimpleNamespace(model="other")))
    assert fetched["gguf"] == {"file": "config/config.yaml", "package": None, "sha256": None}
    assert fetched["config"] == {"model_type": "llama"}
    found = [
        [matrix.technique_recipe(model, name)["adapter"]["options"]["target_modules"] for name in names]
        for model in matrix.models
    ]
    fused = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    apart = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert found == [[fused, fused, ["o_proj"]], [apart, apart, ["q_proj"]]]
