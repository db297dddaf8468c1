"""What KAITO is sent: accepted by the schema and the operator's rules, or refused here by its key."""

import copy
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
from snaketune.platforms.kaito.admission import PRESETS, admit
from snaketune.platforms.kaito.manifests import messages_of, serving_manifest, tuning_manifests
from snaketune.platforms.kaito.technique import Kaito, KaitoTechnique, Serving
from snaketune.platforms.kaito.training_config import LAYERS
from snaketune.platforms.registry import read_matrix

ROOT = Path(__file__).parents[3]
EXPERIMENT = read_yaml(ROOT / "config/config.yaml") | read_yaml(ROOT / "config/experiments/kaito.yaml")
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


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("precision", "dora"), [("fp32", False), ("nf4", False), ("fp32", True), ("nf4", True)])
def test_every_preset_and_method_is_accepted(preset, precision, dora):
    config, workspace = tuning_manifests(recipe(preset, precision, dora), 100, "ab")
    jsonschema.validate(workspace, workspace_schema())
    assert refusal(workspace, {config["metadata"]["name"]: config}, provisions=True) is None
    assert workspace["tuning"]["method"] == ("qlora" if precision == "nf4" else "lora")
    sections = training_config(config)
    assert set(sections["LoraConfig"]["target_modules"]) == LAYERS
    assert sections["LoraConfig"]["use_dora"] == dora
    assert sections["QuantizationConfig"]["load_in_4bit"] == (precision == "nf4")


def test_own_nodes_have_no_instance_type():
    config, workspace = tuning_manifests(recipe(instance_type=None), 100, "ab")
    assert refusal(workspace, {config["metadata"]["name"]: config}, provisions=False) is None
    assert refusal(workspace, {config["metadata"]["name"]: config}, provisions=True)


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
    jsonschema.validate(workspace, workspace_schema())
    assert refusal(workspace, {config["metadata"]["name"]: config}, provisions=True) is None
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
    assert (
        len(
            {
                before,
                name_of(recipe(), 100, "cd"),
                name_of(other, 100, "ab"),
                name_of(recipe(precision="nf4"), 100, "ab"),
            }
        )
        == 4
    )


NOTHING = object()
# A way into the manifests, a value that is wrong there, and the key that the message names.
WRONG = [
    ("workspace.apiVersion", "kaito.sh/v1", "apiVersion"),
    ("workspace.kind", "Workspaces", "kind"),
    ("workspace.spec", {}, "spec"),
    ("workspace.metadata.name", "Upper", "metadata.name"),
    ("workspace.metadata.name", "a" * 64, "metadata.name"),
    ("workspace.metadata.namespace", "a_b", "metadata.namespace"),
    ("workspace.resource.count", 2, "resource.count"),
    ("workspace.resource.count", 0, "resource.count"),
    ("workspace.resource.instanceType", NOTHING, "instanceType"),
    ("workspace.resource.labelSelector", NOTHING, "labelSelector"),
    ("workspace.resource.labelSelector.matchLabels", {}, "matchLabels"),
    ("workspace.resource.labelSelector.matchLabels", {"kaito.sh/workspace": "x"}, "matchLabels"),
    ("workspace.resource.labelSelector.matchLabels", {"a b": "x"}, "matchLabels"),
    ("workspace.tuning", NOTHING, "tuning"),
    ("workspace.inference", {"preset": {"name": "phi-4"}}, "inference"),
    ("workspace.tuning.method", "dora", "tuning.method"),
    ("workspace.tuning.method", "qlora", "QuantizationConfig"),
    ("workspace.tuning.preset.name", "phi-2", "tuning.preset.name"),
    ("workspace.tuning.preset.name", "Phi-4", "tuning.preset.name"),
    ("workspace.tuning.preset.accessMode", "public", "accessMode"),
    ("workspace.tuning.config", "other", "tuning.config"),
    ("workspace.tuning.config", NOTHING, "tuning.config"),
    ("workspace.tuning.input.volume", {}, "tuning.input.volume"),
    ("workspace.tuning.input.image", "example.org/rows", "tuning.input"),
    ("workspace.tuning.input.volumeSource", NOTHING, "tuning.input"),
    ("workspace.tuning.input", {"urls": ["http://localhost/train.jsonl"]}, "tuning.input"),
    ("workspace.tuning.input", {"urls": ["http://169.254.169.254/train.jsonl"]}, "tuning.input"),
    ("workspace.tuning.input", {"urls": ["file:///train.jsonl"]}, "tuning.input"),
    ("workspace.tuning.input", {"urls": []}, "tuning.input.urls"),
    ("workspace.tuning.input", {"image": "not an image"}, "tuning.input.image"),
    ("workspace.tuning.output", NOTHING, "tuning.output"),
    ("workspace.tuning.output", {"image": "example.org/out"}, "imagePushSecret"),
    ("workspace.tuning.output.image", "example.org/out", "imagePushSecret"),
    ("workspace.tuning.output.volumeSource.persistentVolumeClaim.readOnly", True, "readOnly"),
    ("workspace.tuning.output.volumeSource.nfs", {"server": "s", "path": "/p"}, "tuning.output.volumeSource"),
    ("workspace.tuning.output.volumeSource.persistentVolumeClaim.claim", "c", "persistentVolumeClaim.claim"),
    ("config.metadata.namespace", "elsewhere", "tuning.config"),
    ("config.data", {"config.yaml": ""}, "training_config.yaml"),
    ("config.data.training_config.yaml", "{", "training_config.yaml"),
    ("training.Trainer", {}, "training_config.Trainer"),
    ("training.QuantizationConfig.load_in_4bit", True, "QuantizationConfig"),
    ("training.QuantizationConfig.load_in_4bit", "true", "load_in_4bit"),
    ("training.LoraConfig.target_modules", ["q_proj"], "target_modules"),
    ("training.LoraConfig.target_modules", [], "target_modules"),
    ("training.LoraConfig.lora_alpha", 0.5, "lora_alpha"),
    ("training.LoraConfig.init_lora_weights", "pissa", "init_lora_weights"),
    ("training.TrainingArguments.output_dir", "/mnt", "output_dir"),
    ("training.TrainingArguments.output_dir", "/mnt/../etc", "output_dir"),
    ("training.TrainingArguments.output_dir", "/mnt/data", "output_dir"),
    ("training.TrainingArguments.save_strategy", False, "save_strategy"),
    ("training.TrainingArguments.report_to", "wandb", "report_to"),
    ("training.TrainingArguments.deepspeed", "zero3.json", "deepspeed"),
    ("training.ModelConfig.trust_remote_code", True, "trust_remote_code"),
    ("training.DatasetConfig.shuffle_dataset", True, "shuffle_dataset"),
    ("training.DatasetConfig.train_test_split", 0.8, "train_test_split"),
    ("training.DataCollator.mlm", True, "mlm"),
]


@pytest.mark.parametrize(("way", "value", "key"), WRONG, ids=[f"{way}={value!r:.30}" for way, value, _ in WRONG])
def test_wrong_manifests_are_refused_by_their_key(way, value, key):
    config, workspace = tuning_manifests(recipe(), 100, "ab")
    content = {"workspace": workspace, "config": copy.deepcopy(config), "training": training_config(config)}
    admit(workspace, config, auto_provisioning=True)
    file = way == "config.data.training_config.yaml"
    *parents, last = ["config", "data", "training_config.yaml"] if file else way.split(".")
    part = content
    for parent in parents:
        part = part[parent]
    if value is NOTHING:
        del part[last]
    else:
        part[last] = value
    if parents[0] == "training":
        content["config"]["data"]["training_config.yaml"] = yaml.safe_dump({"training_config": content["training"]})
    with pytest.raises(UserError) as refused:
        admit(content["workspace"], content["config"], auto_provisioning=True)
    assert key in str(refused.value)
    assert str(refused.value).count("\n") == 1


TECHNIQUES = [
    ("adapter", {"type": "ia3", "options": {"target_modules": ["o_proj"]}}, "adapter.type"),
    ("adapter.options.init_lora_weights", "pissa", "init_lora_weights"),
    ("adapter.options.lora_alpha", 1.5, "lora_alpha"),
    ("adapter.options.target_modules", ["q_proj"], "target_modules"),
    ("world_size", 2, "world_size"),
    ("engine", {"type": "deepspeed", "zero_stage": 2}, "engine"),
    ("platform.type", "kubeflow", "platform.type"),
    ("platform.gpu", 1, "platform.gpu"),
    ("platform.labels", {}, "platform.labels"),
    ("platform.preset", "phi-2", "platform.preset"),
    ("platform.dtype", "float16", "platform.dtype"),
    ("platform.data", {}, "platform.data"),
    ("platform.data.url", "https://example.org/train.jsonl", "platform.data"),
    ("platform.data", {"url": "https://10.0.0.1/train.jsonl"}, "platform.data"),
    ("platform.data", {"url": "https://example.org/rows"}, "platform.data"),
    ("platform.output.image", "example.org/out:1", "platform.output"),
    ("platform.output.volume", {"configMap": {"name": "x"}}, "platform.output.volume"),
    ("platform.output.volume.persistentVolumeClaim.claimName", "A", "platform.output.volume"),
    ("platform.output.path", "", "platform.output.path"),
]


@pytest.mark.parametrize(("way", "value", "key"), TECHNIQUES, ids=[way for way, _, _ in TECHNIQUES])
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


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
)
def test_anything_else_is_one_message(content):
    with pytest.raises(UserError):
        admit(content, None)


SERVING = {"instance_type": "Standard_NC24ads_A100_v4", "labels": {"a": "b"}, "preset": "phi-4"}


def served(**keys):
    return {"cell": ["m", "s", "lora", 1], "serving": Serving.model_validate(SERVING | keys).model_dump()}


def test_serving_an_adapter():
    volume = {"volume": {"volume": VOLUME, "path": "/mnt/out"}}
    for keys in (
        {"image": "example.org/adapter:{name}"},
        volume,
        {**volume, "runtime": "transformers", "strength": 0.5},
    ):
        workspace = serving_manifest(served(**keys), "ab")
        jsonschema.validate(workspace, workspace_schema())
        assert refusal(workspace, {}, provisions=True) is None
    assert workspace["inference"]["adapters"][0]["strength"] == "0.5"
    assert workspace["metadata"]["annotations"]["kaito.sh/runtime"] == "transformers"
    workspace["inference"]["adapters"] *= 2
    with pytest.raises(UserError, match=r"source\.name"):
        admit(workspace)
    for wrong in (
        {},
        {"image": "a", **volume},
        {**volume, "strength": 0.5},
        {**volume, "strength": 2, "runtime": "transformers"},
    ):
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


@pytest.mark.parametrize(("changes", "told"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_experiment_that_cannot_be_is_told(changes, told):
    with pytest.raises(UserError, match=told):
        read_matrix({**EXPERIMENT, **changes}, ROOT)


def test_two_runs_with_one_output_are_refused(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    path = tmp_path / "config/techniques/kaito-lora.yaml"
    read_matrix({**EXPERIMENT, "seeds": [1, 2]}, tmp_path)
    path.write_text(path.read_text().replace("-{seed}", ""))
    with pytest.raises(UserError, match=r"kaito-lora/2 would overwrite \S*kaito-lora/1"):
        read_matrix({**EXPERIMENT, "seeds": [1, 2]}, tmp_path)
