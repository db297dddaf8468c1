"""Build the manifests of a KAITO operator from a run's parameters."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from snaketune.core import files
from snaketune.core.errors import UserError
from snaketune.data.formats import beyond_texts
from snaketune.platforms.kaito.technique import fill_placeholders

TRAIN_FILE = "train.jsonl"
MANIFEST = "tuning.yaml"
DIGEST = "snaketune/recipe-sha256"
# Where KAITO's trainer differs and has no option for it; noted in every manifest.
DIFFERS = (
    "The loss covers every token of a conversation, not only the answers; the trainer orders the rows itself "
    "(with the same seed); warm-up starts at a learning rate of zero, one step lower; validation rows are ignored."
)


def messages_of(path: Path) -> list[dict[str, Any]]:
    """Return the conversations of a split as KAITO's trainer reads them.

    Raises:
        UserError: a row has an answer that isn't to be learned, or more than texts.
    """
    rows = files.read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        if any("weight" in message for message in row["messages"]):
            raise UserError(
                f"{path}, line {number}: KAITO learns every answer, but this row has one of weight 0: leave it out"
            )
        if more := beyond_texts(row):
            raise UserError(f"{path}, line {number}: KAITO is sent texts only, but this row has {more}: leave it out")
    return [{"messages": [{"role": m["role"], "content": m["content"]} for m in row["messages"]]} for row in rows]


def training_file(recipe: dict[str, Any], rows: int, dataset: str | None) -> dict[str, Any]:
    """Return the ``training_config.yaml`` of a run with ``rows`` conversations.

    The schedule is that of local training: linear warm-up, then a cosine to a tenth. The
    optimizer's other options are equal by default.
    """
    training, platform, (each, accumulated) = recipe["training"], recipe["platform"], recipe["batches"]
    options, quantized = training["adapter"]["options"], training["base_precision"] == "nf4"
    steps = training["epochs"] * math.ceil(rows / training["batch_rows"])
    return {
        "training_config": {
            "ModelConfig": {"torch_dtype": platform["dtype"], "local_files_only": True, "trust_remote_code": False},
            "QuantizationConfig": {
                "load_in_4bit": quantized,
                "load_in_8bit": False,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
                "bnb_4bit_compute_dtype": platform["dtype"],
            },
            "LoraConfig": {
                "r": options["r"],
                "lora_alpha": int(options["lora_alpha"]),
                "lora_dropout": options["lora_dropout"],
                "target_modules": options["target_modules"],
                "use_dora": options["use_dora"],
                "use_rslora": options["use_rslora"],
            },
            "TrainingArguments": {
                # The output volume is mounted here as a whole.
                "output_dir": "/mnt/results",
                "num_train_epochs": training["epochs"],
                "per_device_train_batch_size": each,
                "gradient_accumulation_steps": accumulated,
                "learning_rate": training["learning_rate"],
                "weight_decay": training["weight_decay"],
                "max_grad_norm": training["max_grad_norm"],
                "warmup_steps": max(1, round(training["warmup_share"] * steps)),
                "lr_scheduler_type": "cosine_with_min_lr",
                "lr_scheduler_kwargs": '{"min_lr_rate": 0.1}',
                "optim": "adamw_torch_fused",
                "seed": training["seed"],
                "data_seed": training["seed"],
                "bf16": platform["dtype"] == "bfloat16",
                "max_length": recipe["max_tokens"],
                "packing": False,
                "logging_strategy": "steps",
                "logging_steps": 1,
                "save_strategy": "epoch",
                "save_total_limit": 1,
                "save_only_model": True,
                "report_to": "none",
            },
            "DatasetConfig": {
                "dataset_extension": "json",
                "shuffle_dataset": False,
                "train_test_split": 1,
                **({"dataset_path": dataset} if dataset else {}),
            },
            "DataCollator": {"mlm": False},
        }
    }


def tuning_manifests(recipe: dict[str, Any], rows: int, train_digest: str) -> list[dict[str, Any]]:
    """Return the ConfigMap and the Workspace of a run.

    Their name is a hash of everything that decides the adapter, so that a run is never created twice.

    Args:
        recipe: ``cell``, ``training``, ``batches``, ``platform`` and ``max_tokens``.
        train_digest: SHA-256 of train.jsonl, of ``rows`` lines.
    """
    decides = {key: recipe[key] for key in ("cell", "training", "batches", "max_tokens")}
    decides["platform"] = what_decides_weights(recipe["platform"])
    metadata = metadata_of(recipe["platform"], recipe["cell"], [decides, train_digest])
    metadata["annotations"]["snaketune/differs"] = DIFFERS
    name = metadata["name"]
    platform = fill_placeholders(recipe["platform"], recipe["cell"], name)
    data, output = platform["data"], platform["output"]
    training = training_file(recipe, rows, f"data/{name}/{TRAIN_FILE}" if data["volume"] else None)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"training_config.yaml": yaml.safe_dump(training, sort_keys=False)},
    }
    tuning = {
        "preset": {"name": platform["preset"]},
        "method": "qlora" if recipe["training"]["base_precision"] == "nf4" else "lora",
        "config": name,
        "input": {"urls": [data["url"]]} if data["url"] else source(data),
        "output": {"volumeSource": output["volume"]}
        if output["volume"]
        else {"image": output["image"], "imagePushSecret": output["push_secret"]},
    }
    return [config, workspace(metadata, platform, "tuning", tuning)]


def serving_manifest(recipe: dict[str, Any], adapter_digest: str) -> dict[str, Any]:
    """Return the inference Workspace of a run's adapter."""
    metadata = metadata_of(recipe["serving"], recipe["cell"], [recipe["cell"], recipe["serving"], adapter_digest])
    serving = fill_placeholders(recipe["serving"], recipe["cell"], metadata["name"])
    if serving["runtime"] == "transformers":
        metadata["annotations"]["kaito.sh/runtime"] = "transformers"
    strength = {"strength": f"{serving['strength']:g}"} if serving["strength"] is not None else {}
    adapter = {"source": {"name": "adapter", **source(serving)}, **strength}
    inference = {"preset": {"name": serving["preset"]}, "adapters": [adapter]}
    return workspace(metadata, serving, "inference", inference)


def metadata_of(nodes: dict[str, Any], cell: Sequence[Any], decides: list[Any]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return {
        "name": f"snaketune-{digest[:16]}",
        "namespace": nodes["namespace"],
        "annotations": {"snaketune/cell": "/".join(map(str, cell)), DIGEST: digest},
    }


def workspace(metadata: dict[str, Any], nodes: dict[str, Any], task: str, content: dict[str, Any]) -> dict[str, Any]:
    instance = {"instanceType": nodes["instance_type"]} if nodes["instance_type"] else {}
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": metadata,
        "resource": {"count": 1, **instance, "labelSelector": {"matchLabels": nodes["labels"]}},
        task: content,
    }


def source(place: dict[str, Any]) -> dict[str, Any]:
    """Return the volume, or the image, that files are read from."""
    if place["volume"]:
        return {"volumeSource": place["volume"]["volume"]}
    return {"image": place["image"], **({"imagePullSecrets": place["pull_secrets"]} if place["pull_secrets"] else {})}


def what_decides_weights(platform: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide the adapter: not the kubeconfig context or local mount points."""
    data, output = platform["data"], platform["output"]
    return {
        **{key: value for key, value in platform.items() if key != "context"},
        "data": {**data, "volume": data["volume"] and data["volume"]["volume"]},
        "output": {key: value for key, value in output.items() if key != "path"},
    }
