"""What KAITO is sent: the schema and the operator's rules accept it; a mistake in what decides it is named by its key."""

import copy
import inspect
import json
import math
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.services.kubernetes_service import refusal, workspace_schema

from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml, write_jsonl
from snaketune.platforms.kaito.manifests import messages_of, serving_manifest, tuning_manifests
from snaketune.platforms.kaito.technique import PRESETS, Kaito, KaitoTechnique, Serving
from snaketune.platforms.registry import read_matrix

ROOT = Path(__file__).parents[3]
EXPERIMENT = read_yaml(ROOT / "config/config.yaml") | read_yaml(ROOT / "config/experiments/kaito.yaml")
LAYERS = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
VOLUME = {"persistentVolumeClaim": {"claimName": "{model}-{seed}"}}
TECHNIQUE = {
    "description": "d",
    "adapter": {"type": "lora", "options": {"r": 8, "lora_alpha": 16, "target_modules": sorted(LAYERS)}},
    "learning_rate": 2e-4,
    "platform": {
        "type": "kaito",
        "instance_type": "Standard_NC24ads_A100_v4",
        "labels": {"apps": "snaketune"},
        "data": {"volume": {"volume": {"persistentVolumeClaim": {"claimName": "data"}}, "path": "/mnt/data"}},
        "output": {"volume": VOLUME, "path": "/mnt/out/{model}"},
    },
}


def recipe(preset="phi-4", precision="fp32", dora=False, **platform):
    content = copy.deepcopy(TECHNIQUE) | {"base_precision": precision}
    content["adapter"]["options"]["use_dora"] = dora
    content["platform"] |= {"preset": preset, **platform}
    technique = KaitoTechnique.model_validate(content)
    training = technique.model_dump(
        include={"adapter", "base_precision", "weight_decay", "warmup_share", "max_grad_norm"}
    )
    return {
        "cell": ["Phi_4.0", "areas", "kaito-lora", 1],
        "training": {**training, "epochs": 2, "batch_rows": 16, "learning_rate": 2e-4, "seed": 1},
        "platform": technique.platform.model_dump(),
        "batches": list(technique.batches(16)),
        "max_tokens": 512,
    }


def training_config(config):
    return yaml.safe_load(config["data"]["training_config.yaml"])["training_config"]


def accepted(workspace, *configs, provisions=True):
    jsonschema.validate(workspace, workspace_schema())
    return refusal(workspace, {config["metadata"]["name"]: config for config in configs}, provisions) is None


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("precision", "dora"), [("fp32", False), ("nf4", False), ("fp32", True), ("nf4", True)])
def test_every_preset_and_method_is_accepted(preset, precision, dora):
    config, workspace = tuning_manifests(recipe(preset, precision, dora), 100, "ab")
    assert accepted(workspace, config)
    assert workspace["tuning"]["method"] == ("qlora" if precision == "nf4" else "lora")
    sections = training_config(config)
    assert set(sections["LoraConfig"]["target_modules"]) == LAYERS
    assert sections["LoraConfig"]["use_dora"] == dora
    assert sections["QuantizationConfig"]["load_in_4bit"] == (precision == "nf4")


def test_the_tuning_image_knows_every_option():
    """The image exits on an unknown one. Its arguments are those of these classes, and two of trl's SFTConfig."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, TrainingArguments

    sections = training_config(tuning_manifests(recipe(), 100, "ab")[0])
    assert sections["LoraConfig"].keys() <= LoraConfig.__dataclass_fields__.keys()
    assert sections["QuantizationConfig"].keys() <= inspect.signature(BitsAndBytesConfig).parameters.keys()
    trl = {"max_length", "packing"}
    assert sections["TrainingArguments"].keys() <= TrainingArguments.__dataclass_fields__.keys() | trl


def test_own_nodes_have_no_instance_type():
    config, workspace = tuning_manifests(recipe(instance_type=None), 100, "ab")
    assert accepted(workspace, config, provisions=False)
    assert not accepted(workspace, config)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ({"data": {"url": "https://example.org/{name}/train.jsonl"}}, "urls"),
        ({"data": {"image": "registry.example.org/rows:{name}", "pull_secrets": ["pull"]}}, "image"),
        ({"output": {"image": "registry.example.org/out:{name}", "push_secret": "push", "path": "/mnt/out"}}, "image"),
        ({"output": {"volume": {"nfs": {"server": "10.0.0.4", "path": "/out/{name}"}}, "path": "/o"}}, "volumeSource"),
    ],
)
def test_other_ways_in_and_out(place, found):
    config, workspace = tuning_manifests(recipe(**place), 100, "ab")
    assert accepted(workspace, config)
    part = workspace["tuning"]["input" if "data" in place else "output"]
    assert found in part
    assert "{name}" not in json.dumps(part)


def test_the_recipe_is_carried():
    from snaketune.training.loop import Plan

    config, _ = tuning_manifests(recipe(gpus=2), 100, "ab")
    arguments = training_config(config)["TrainingArguments"]
    assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] * 2 == 16
    assert (arguments["num_train_epochs"], arguments["learning_rate"], arguments["seed"]) == (2, 2e-4, 1)
    assert (arguments["max_grad_norm"], arguments["weight_decay"], arguments["max_length"]) == (1.0, 0.0, 512)
    # Their schedule, from its definition, is ours but for its first step.
    steps, warm = 14, arguments["warmup_steps"]
    least = json.loads(arguments["lr_scheduler_kwargs"])["min_lr_rate"]
    ours = Plan([[0]] * steps, 16, 2e-4, 0.05, 1.0, 1)
    for step in range(warm, steps):
        cosine = (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
        assert ours.rate(step) == pytest.approx(2e-4 * (least + (1 - least) * cosine))


def name_of(*arguments):
    return tuning_manifests(*arguments)[1]["metadata"]["name"]


def test_the_name_follows_from_what_decides_the_adapter():
    before = name_of(recipe(), 100, "ab")
    assert before == name_of(recipe(), 100, "ab")
    moved = recipe(context="other", output={"volume": VOLUME, "path": "/elsewhere"})
    assert before == name_of(moved, 100, "ab")
    other = recipe()
    other["training"]["learning_rate"] = 1e-4
    changed = [(recipe(), 100, "cd"), (other, 100, "ab"), (recipe(precision="nf4"), 100, "ab")]
    assert len({before, *(name_of(*one) for one in changed)}) == 4


TECHNIQUES = [
    ("adapter", {"type": "ia3", "options": {"target_modules": ["o_proj"]}}, "adapter.type"),
    ("adapter.options.init_lora_weights", "pissa", "init_lora_weights"),
    ("adapter.options.lora_alpha", 1.5, "lora_alpha"),
    ("world_size", 2, "world_size"),
    ("engine", {"type": "deepspeed", "zero_stage": 2}, "engine"),
    ("platform.type", "kubeflow", "platform.type"),
    ("platform.gpu", 1, "platform.gpu"),
    ("platform.labels", {}, "platform.labels"),
    ("platform.labels", {"a b": "x"}, "platform.labels"),
    ("platform.labels", {"kaito.sh/workspace": "x"}, "platform.labels: expected a label of your own"),
    ("platform.namespace", "a_b", "platform.namespace"),
    ("platform.preset", "phi-2", "platform.preset"),
    ("platform.dtype", "float16", "platform.dtype"),
    ("platform.data", {}, "platform.data"),
    ("platform.data.url", "https://example.org/train.jsonl", "platform.data"),
    ("platform.data", {"url": "https://10.0.0.1/train.jsonl"}, "platform.data.url: expected an http"),
    ("platform.data", {"url": "http://localhost/train.jsonl"}, "platform.data.url: expected an http"),
    ("platform.data", {"url": "http://169.254.169.254/train.jsonl"}, "platform.data.url: expected an http"),
    ("platform.data", {"url": "http://metadata.google/train.jsonl"}, "platform.data.url: expected an http"),
    ("platform.data", {"url": "file:///train.jsonl"}, "platform.data.url: expected an http"),
    ("platform.data", {"url": "https://example.org/rows"}, "platform.data.url: must end"),
    ("platform.data", {"image": "not an image"}, "platform.data.image"),
    ("platform.data.pull_secrets", ["secret"], "platform.data"),
    ("platform.output.image", "example.org/out:1", "platform.output"),
    ("platform.output.volume", {"configMap": {"name": "x"}}, "platform.output.volume"),
    ("platform.output.volume.nfs", {"server": "s", "path": "/p"}, "platform.output.volume"),
    ("platform.output.volume.persistentVolumeClaim.claim", "c", "platform.output.volume"),
    ("platform.output.volume.persistentVolumeClaim.claimName", "A", "platform.output.volume"),
    ("platform.output.volume.persistentVolumeClaim.readOnly", True, "readOnly must be false"),
    ("platform.output.path", "", "platform.output.path"),
]


@pytest.mark.parametrize(("way", "value", "key"), TECHNIQUES)
def test_wrong_techniques_are_refused_by_their_key(way, value, key):
    content = copy.deepcopy(TECHNIQUE)
    validated(KaitoTechnique, content, "x.yaml")
    *parents, last = way.split(".")
    part = content
    for parent in parents:
        part = part[parent]
    part[last] = value
    with pytest.raises(UserError, match=key):
        validated(KaitoTechnique, content, "x.yaml")


@given(rows=st.integers(1, 256), micro=st.integers(1, 64), gpus=st.integers(1, 8))
def test_the_global_batch_is_kept(rows, micro, gpus):
    content = copy.deepcopy(TECHNIQUE) | {"micro_batch_rows": micro}
    content["platform"]["gpus"] = gpus
    technique = KaitoTechnique.model_validate(content)
    if rows % gpus:
        with pytest.raises(ValueError, match="gpus"):
            technique.batches(rows)
    else:
        each, accumulated = technique.batches(rows)
        assert each * accumulated * gpus == rows
        assert each <= micro


SERVING = {"instance_type": "Standard_NC24ads_A100_v4", "labels": {"a": "b"}, "preset": "phi-4"}


def served(**keys):
    return {"cell": ["m", "s", "lora", 1], "serving": Serving.model_validate(SERVING | keys).model_dump()}


def test_serving_an_adapter():
    volume = {"volume": {"volume": VOLUME, "path": "/mnt/out"}}
    strong = {**volume, "runtime": "transformers", "strength": 0.5}
    for keys in ({"image": "example.org/adapter:{name}"}, volume, strong):
        workspace = serving_manifest(served(**keys), "ab")
        assert accepted(workspace)
    assert workspace["inference"]["adapters"][0]["strength"] == "0.5"
    assert workspace["metadata"]["annotations"]["kaito.sh/runtime"] == "transformers"
    without, two = {"strength": 0.5, **volume}, {"image": "a", **volume}
    for wrong in ({}, two, without, {**strong, "strength": 2}, {**strong, "strength": 1e-5}):
        with pytest.raises(ValueError):
            served(**wrong)


def test_places_are_kept_in_a_platform():
    assert Kaito.model_validate(TECHNIQUE["platform"]).output.volume == VOLUME


SERVED = {"labels": {"a": "b"}, "image": "example.org/adapter:{name}"}
IMPOSSIBLE = {
    "another model": ({"models": ["tiny-phi3"]}, "platform.preset: KAITO has no preset of tiny-phi3"),
    "plain text": ({"scenarios": ["domain"]}, "domain is task: language-modeling"),
    "DoRA by vllm": ({"techniques": ["dora"], "kaito": SERVED}, "vllm can't load a DoRA adapter such as that of dora"),
    "another model to serve": (
        {"models": ["tiny-phi3"], "techniques": ["lora"], "kaito": SERVED},
        "kaito.preset: KAITO has no preset of tiny-phi3",
    ),
}


def test_an_answer_that_kaito_would_learn_against_its_weight_is_refused(tmp_path):
    roles = ("user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": "a"} for role in roles]
    write_jsonl(tmp_path / "train.jsonl", [{"messages": messages}])
    assert messages_of(tmp_path / "train.jsonl") == [{"messages": messages}]
    messages[1]["weight"] = 0
    write_jsonl(tmp_path / "train.jsonl", [{"messages": messages}])
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: KAITO learns every answer"):
        messages_of(tmp_path / "train.jsonl")
    del messages[1]["weight"]
    messages[1]["reasoning_content"] = "b"
    write_jsonl(tmp_path / "train.jsonl", [{"messages": messages}])
    with pytest.raises(UserError, match=r"line 1: KAITO is sent texts only, but this row has reasoning_content"):
        messages_of(tmp_path / "train.jsonl")


@pytest.mark.parametrize(("changes", "told"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_experiment_that_cannot_be_is_told(changes, told):
    with pytest.raises(UserError, match=told):
        read_matrix({**EXPERIMENT, **changes}, ROOT)


@pytest.mark.parametrize(
    ("model", "edits", "told"),
    [
        ("phi-3-mini-4k-instruct", {"-{seed}": ""}, r"kaito-lora/2 would overwrite \S*kaito-lora/1"),
        ("phi-3-mini-4k-instruct", {"-{model}": f"{'a' * 220}-{{model}}"}, r"kaito-lora\.yaml: platform:\n  output"),
        (
            "smollm2-135m-instruct",
            {
                "[qkv_proj, o_proj, gate_up_proj, down_proj]": "all-linear",
                "type: kaito": "type: kaito\n  preset: phi-4",
            },
            "kaito-lora.yaml: adapter.options.target_modules: gate_proj, k_proj, q_proj",
        ),
    ],
)
def test_what_no_run_could_have_is_refused(tmp_path, model, edits, told):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    changed = {**EXPERIMENT, "models": [model], "techniques": ["kaito-lora"], "seeds": [1, 2]}
    path = tmp_path / "config/techniques/kaito-lora.yaml"
    text = path.read_text()
    for old, new in edits.items():
        text = text.replace(old, new)
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        read_matrix(changed, tmp_path)
