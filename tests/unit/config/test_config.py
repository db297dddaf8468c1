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

from snaketune.config.matrix import Matrix, modules_of
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml
from snaketune.dag.job_params import JobParams
from snaketune.dag.recipes import Recipes
from snaketune.platforms.registry import SCHEMAS, read_matrix
from write_schemas import KINDS, schema_text

ROOT = Path(__file__).parents[3]
CONFIG = read_yaml(ROOT / "config/config.yaml")
YAML_FILES = sorted((ROOT / "config").rglob("*.yaml"))
TECHNIQUE = {"description": "for a test", "learning_rate": 1e-3}
MODEL = {"description": "for a test", "licence": "none"}
SCENARIO = read_yaml(ROOT / "config/scenarios/classification.yaml")
MAPPING = {"phi3": ["o_proj"], "llama": ["q_proj"]}
LORA_ON_LLAMA = {"type": "lora", "options": {"target_modules": ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]}}


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


def test_the_shipped_experiment_is_valid() -> None:
    matrix = Recipes(CONFIG, ROOT)
    for technique in matrix.techniques:
        assert matrix.training_recipe("tiny-phi3", technique, 1)["seed"] == 1


def test_further_seeds_of_one_run_add_its_cells_alone_and_nothing_to_others() -> None:
    further = {"more_seeds": {"tiny-phi3": {"classification": {"lora": [1, 2, 4]}}}}
    before, after = (Recipes(config, ROOT) for config in (CONFIG, CONFIG | further))
    added = set(after.cells) - set(before.cells)
    assert added == {("tiny-phi3", "classification", "lora", seed) for seed in (2, 4)}
    assert set(before.cells) < set(after.cells)
    assert "more_seeds" not in before.parameters()["experiment"]


def test_further_seeds_of_another_experiment_are_refused() -> None:
    with pytest.raises(UserError, match="more_seeds: dora-2 is none of this experiment's techniques"):
        Recipes(CONFIG | {"more_seeds": {"tiny-phi3": {"classification": {"dora-2": [2]}}}}, ROOT)


@pytest.mark.parametrize("path", sorted((ROOT / "config/experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_is_valid_over_the_default(path: Path) -> None:
    read_matrix(CONFIG | read_yaml(path), ROOT)


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_yaml_file_names_its_schema_for_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found, f"the first line of {path} names no schema"
    assert (path.parent / found[1]).resolve() in {ROOT / f"config/schemas/{kind}.schema.json" for kind in KINDS}, (
        f"{path} names a schema that doesn't exist"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_schemas_are_those_of_the_typed_models(kind: str) -> None:
    path = ROOT / f"config/schemas/{kind}.schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(kind), f"{path} is out of date: run `make schemas`"


def test_no_schema_is_left_over() -> None:
    assert {path.name for path in (ROOT / "config/schemas").iterdir()} == {f"{kind}.schema.json" for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("experiment", CONFIG | {"seed": [1]}, ["seed: unknown key", "did you mean seeds?"]),
        ("experiment", CONFIG | {"training": {"epoch": 1}}, ["training.epoch: unknown key", "did you mean epochs?"]),
        ("experiment", CONFIG | {"training": {"epochs": "three"}}, ["training.epochs", "integer", "'three'"]),
        ("experiment", CONFIG | {"training": {"epochs": 0}}, ["training.epochs", "greater than 0"]),
        ("experiment", CONFIG | {"seeds": [1, 1]}, ["seeds names 1 twice"]),
        ("experiment", CONFIG | {"techniques": ["base"]}, ["base is the untuned model"]),
        ("experiment", CONFIG | {"precisions": ["int8"]}, ["precisions must hold fp32"]),
        ("experiment", {"models": ["tiny-phi3"]}, ["scenarios: missing", "corpus: missing"]),
        ("experiment", CONFIG | {"parity": {"budgets": {"adapter-mergd": {"kl_divergence": 1}}}}, ["adapter-mergd"]),
        ("technique", TECHNIQUE | {"adaptor": None}, ["adaptor: unknown key", "did you mean adapter?"]),
        ("technique", TECHNIQUE | {"engine": {"zero_stage": 2}}, ["engine", "need type: deepspeed"]),
        ("technique", TECHNIQUE | {"engine": {"offload": "cpu"}}, ["engine", "need type: deepspeed"]),
        ("technique", TECHNIQUE | {"base_precision": "nf4"}, ["nf4 can't be trained without an adapter"]),
        ("technique", TECHNIQUE | {"base_precision": "nf4"}, ["nf4 can't be trained without an adapter"]),
        ("technique", TECHNIQUE | {"learning_rate": {"tiny-phi3": 0.1}}, ["learning_rate needs the key `default`"]),
        ("technique", TECHNIQUE | {"learning_rate": -1}, ["learning_rate", "greater than 0", "-1"]),
        ("technique", TECHNIQUE | {"adapter": {"type": "lorra"}}, ["adapter", "'lorra'", "'lora', 'ia3'"]),
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
        ("scenario", SCENARIO | {"prompt": "no field"}, ["prompt must hold {text}"]),
        ("scenario", SCENARIO | {"answer": "{label} {other}"}, ["answer may hold"]),
        ("scenario", SCENARIO | {"prompt": "{text} is about {label}"}, ["prompt may hold {text} only"]),
        ("scenario", SCENARIO | {"split": {"validation": 0.5, "test": 0.5}}, ["split", "must leave rows"]),
        ("export", {"description": "x", "method": "int8"}, ["'int8'", "'dynamic-int8'"]),
        (
            "export",
            {"description": "x", "method": "genai", "options": {"weights": "fp32", "algorithm": "k_quant"}},
            ["fp32 isn't quantized", "leave out algorithm"],
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


@given(st.text().filter(lambda key: key not in CONFIG))
def test_any_extra_key_of_an_experiment_is_refused_by_name(key: str) -> None:
    assert f"{key}: unknown key" in fault("experiment", CONFIG | {key: 1})


@given(st.text().filter(lambda key: key not in CONFIG["training"]), st.none() | st.integers() | st.text())
def test_any_extra_key_of_a_section_is_refused_by_name(key: str, value: object) -> None:
    assert f"training.{key}: unknown key" in fault("experiment", CONFIG | {"training": {key: value}})


SCHEMA_PARTS = [
    part
    for model in SCHEMAS.values()
    for schema in [model.model_json_schema()]
    for part in [schema, *schema["$defs"].values()]
]
KEYS = sorted({key for part in SCHEMA_PARTS for key in part.get("properties", {})})
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
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is there twice, first in line 1; keep one"),
        ("a:\n- {b: 1}\n- c: 1\n  d: {e: 1,\n  'e': 2}\n", "line 5: the key 'e' is there twice, first in line 4"),
        ('{"a": 1,\n"a": 2}', "line 2: the key 'a' is there twice"),
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


def test_an_unknown_technique_is_named_with_the_nearest(root: Path) -> None:
    with pytest.raises(UserError, match=r"no technique 'qlorra'.*did you mean qlora\?"):
        Matrix(CONFIG | {"techniques": ["qlorra"]}, root)


def test_an_unknown_technique_near_to_none_lists_them_all(root: Path) -> None:
    with pytest.raises(UserError, match=r"no technique 'zzz'.*there are deepspeed, dora, full, .*, lora"):
        Matrix(CONFIG | {"techniques": ["zzz"]}, root)


def test_modules_that_phi3_fuses_are_named_in_one_message(root: Path) -> None:
    write(root, "techniques/mine", TECHNIQUE | {"adapter": LORA_ON_LLAMA})
    with pytest.raises(UserError) as raised:
        Matrix(CONFIG | {"techniques": ["mine"]}, root)
    message = str(raised.value)
    assert "config/techniques/mine.yaml" in message
    assert "q_proj, k_proj, v_proj, gate_proj, up_proj match no module of tiny-phi3" in message
    assert "it has down_proj, gate_up_proj, o_proj, qkv_proj" in message


def save_weights(directory: Path, names: list[str]) -> None:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    tensors = {f"model.layers.0.self_attn.{name}.weight": np.zeros((2, 2), np.float32) for name in names}
    save_file(tensors | {"model.norm.weight": np.zeros(2, np.float32)}, directory / "model.safetensors")


def test_modules_of_a_local_model_are_read_from_its_weights(root: Path) -> None:
    save_weights(root / "models/mine", ["query", "value"])
    assert modules_of(root / "models/mine") == {"query", "value"}
    write(root, "models/mine", MODEL | {"path": "models/mine"})
    write(root, "techniques/mine", TECHNIQUE | {"adapter": LORA_ON_LLAMA})
    with pytest.raises(UserError, match=r"q_proj, .* match no module of mine.*it has query, value"):
        Matrix(CONFIG | {"models": ["mine"], "techniques": ["mine"]}, root)


def test_a_local_model_that_has_the_modules_is_valid(root: Path) -> None:
    save_weights(root / "models/mine", LORA_ON_LLAMA["options"]["target_modules"])
    write(root, "models/mine", MODEL | {"path": "models/mine"})
    write(root, "techniques/mine", TECHNIQUE | {"adapter": LORA_ON_LLAMA})
    Matrix(CONFIG | {"models": ["mine"], "techniques": ["mine"]}, root)


def test_a_local_model_that_is_already_quantized_is_refused_before_its_modules_are_looked_for(root: Path) -> None:
    save_weights(root / "models/mine", ["query"])
    (root / "models/mine/config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    write(root, "models/mine", MODEL | {"path": "models/mine"})
    with pytest.raises(UserError, match=r"config/models/mine\.yaml: path: models/mine: .* already quantized \(gptq\)"):
        Matrix(CONFIG | {"models": ["mine"]}, root)


def test_a_local_model_that_is_not_there_is_named(root: Path) -> None:
    write(root, "models/mine", MODEL | {"path": "models/mine"})
    with pytest.raises(UserError, match=r"config/models/mine\.yaml: path: models/mine holds no config\.json"):
        Matrix(CONFIG | {"models": ["mine"]}, root)


def test_a_source_that_is_not_there_is_named(root: Path) -> None:
    write(root, "scenarios/mine", SCENARIO | {"source": {"path": "rows.jsonl"}})
    with pytest.raises(UserError, match=r"config/scenarios/mine\.yaml: source\.path: rows\.jsonl: no such file"):
        Matrix(CONFIG | {"scenarios": ["mine"]}, root)


@pytest.mark.parametrize("kind", ["models", "scenarios"])
def test_braces_in_a_path_are_named(root: Path, kind: str) -> None:
    content = MODEL | {"path": "a{b}"} if kind == "models" else SCENARIO | {"source": {"path": {"train": "a{b}"}}}
    write(root, f"{kind}/mine", content)
    with pytest.raises(UserError, match=rf"config/{kind}/mine\.yaml: .*path: a{{b}}: Snakemake takes braces .* rename"):
        Matrix(CONFIG | {kind: ["mine"]}, root)


def test_a_learning_rate_is_the_models_own_or_the_default(root: Path) -> None:
    write(root, "techniques/mine", TECHNIQUE | {"learning_rate": {"default": 0.5, "tiny-phi3": 0.25}})
    shutil.copyfile(root / "config/models/tiny-phi3.yaml", root / "config/models/other.yaml")
    matrix = Recipes(CONFIG | {"models": ["tiny-phi3", "other"], "techniques": ["mine"]}, root)
    assert [matrix.training_recipe(model, "mine", 1)["learning_rate"] for model in matrix.models] == [0.25, 0.5]


def test_all_linear_means_the_layers_of_each_family(root: Path) -> None:
    write(root, "models/other", MODEL | {"model_type": "llama", "gguf": {"file": "config/config.yaml"}})
    write(root, "techniques/mapped", TECHNIQUE | {"adapter": {"type": "lora", "options": {"target_modules": MAPPING}}})
    names = ["lora", "peft-ia3", "mapped"]
    matrix = Recipes(CONFIG | {"models": ["tiny-phi3", "other"], "techniques": names}, root)
    fetched = json.loads(JobParams(matrix, ROOT).fetched_model(SimpleNamespace(model="other")))
    assert fetched["gguf"] == {"file": "config/config.yaml", "package": None, "sha256": None}
    assert fetched["config"] == {"model_type": "llama"}
    found = {
        (m, t): matrix.technique_recipe(m, t)["adapter"]["options"]["target_modules"]
        for m in matrix.models
        for t in names
    }
    fused = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    assert found["tiny-phi3", "lora"] == found["tiny-phi3", "peft-ia3"] == fused
    assert found["other", "lora"] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert [found[model, "mapped"] for model in matrix.models] == [MAPPING["phi3"], MAPPING["llama"]]


def test_feedforward_modules_are_among_the_layers_of_the_family(root: Path) -> None:
    write(root, "models/other", MODEL | {"model_type": "phi", "hub": "a/b", "revision": 40 * "0"})
    with pytest.raises(
        UserError, match=r"peft-ia3\.yaml: .*feedforward_modules: down_proj must also be .* fc2 in other"
    ):
        Matrix(CONFIG | {"models": ["other"], "techniques": ["peft-ia3"]}, root)


@pytest.mark.parametrize("targets", ["all-linear", {"phi3": ["o_proj"]}])
def test_a_family_whose_layers_nothing_names_is_refused(root: Path, targets: Any) -> None:
    write(root, "models/other", MODEL | {"model_type": "gpt2", "hub": "a/b", "revision": 40 * "0"})
    write(root, "techniques/mine", TECHNIQUE | {"adapter": {"type": "lora", "options": {"target_modules": targets}}})
    with pytest.raises(
        UserError, match=r"mine\.yaml: adapter\.options\.target_modules: .*other.*gpt2.* all-linear knows phi3"
    ):
        Matrix(CONFIG | {"models": ["other"], "techniques": ["mine"]}, root)


def test_a_gguf_file_has_a_family_and_one_in_a_package_is_pinned(root: Path) -> None:
    assert "gguf: package needs sha256" in fault("model", MODEL | {"gguf": {"file": "a.gguf", "package": "a==1"}})
    assert "gguf needs model_type" in fault("model", MODEL | {"gguf": {"file": "a.gguf"}})
    write(root, "models/mine", MODEL | {"model_type": "llama", "gguf": {"file": "no.gguf"}})
    with pytest.raises(UserError, match=r"models/mine\.yaml: gguf\.file: no\.gguf: no such file"):
        Matrix(CONFIG | {"models": ["mine"]}, root)
