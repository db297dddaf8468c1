"""Typed models of a technique that a KAITO operator (v0.12) trains, and of serving its adapter.

The operator's definition allows typos and impossible combinations, which its webhook or its image reports only in
a cluster. All that a user decides of a manifest is checked here, more strictly where KAITO would train something
else than was meant; `docs/kaito.md` lists these cases.
"""

import ipaddress
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveInt, TypeAdapter, model_validator

from snaketune.config.adapter import Lora
from snaketune.config.base import Strict
from snaketune.config.technique import FAST_PATHS, OF_THE_LOOP, Technique
from snaketune.platforms.kaito.kubernetes_types import (
    DnsLabel,
    DnsName,
    Image,
    LabelKey,
    LabelValue,
    VolumeSource,
    exactly_one,
)

# Each preset that can be tuned, with its repository on the hub.
PRESETS = {
    name.rsplit("/", 1)[1].lower(): name
    for name in (
        "microsoft/Phi-3-mini-4k-instruct",
        "microsoft/Phi-3-mini-128k-instruct",
        "microsoft/Phi-3-medium-4k-instruct",
        "microsoft/Phi-3-medium-128k-instruct",
        "microsoft/Phi-3.5-mini-instruct",
        "microsoft/phi-4",
        "microsoft/Phi-4-mini-instruct",
    )
}
METADATA_HOSTS = {"metadata.google.internal", "metadata.google", "instance-data.ec2.internal"}
# Placeholders that make a volume, an image or a path differ from run to run.
PLACES = ("name", "model", "scenario", "technique", "seed")
Instance = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def fill_placeholders(value: Any, cell: Sequence[Any], name: str) -> Any:
    """Return a nested value with the placeholders in its strings replaced, in Kubernetes' letters.

    Args:
        cell: model, scenario, technique and seed.
        name: of the Workspace.
    """
    if isinstance(value, dict):
        return {key: fill_placeholders(inner, cell, name) for key, inner in value.items()}
    if isinstance(value, str):
        words = (str(word).lower().replace(".", "-").replace("_", "-") for word in cell)
        for place, word in zip(PLACES, (name, *words), strict=True):
            value = value.replace(f"{{{place}}}", word)
    return value


def _checked_as(kind: Any) -> AfterValidator:
    """Validate a value with its placeholders filled in, and keep the placeholders."""
    adapter = TypeAdapter(kind)

    def check(value: Any) -> Any:
        adapter.validate_python(fill_placeholders(value, "xxxx", "x"))
        return value

    return AfterValidator(check)


def _own_label(labels: dict[str, str]) -> dict[str, str]:
    if all(key.split("/")[0].endswith("kaito.sh") for key in labels):
        raise ValueError("expected a label of your own: the operator ignores its own (kaito.sh/…)")
    return labels


def _reachable(url: str) -> str:
    parts = urlsplit(url)
    host = (parts.hostname or "").split("%")[0]
    try:
        inside = not ipaddress.ip_address(host).is_global
    except ValueError:
        inside = host in METADATA_HOSTS or f".{host}".endswith(".localhost")
    if parts.scheme not in ("http", "https") or not host or inside:
        raise ValueError("expected an http or https address: the operator refuses others, and local or private ones")
    if "json" not in url.rsplit("/", 1)[-1]:
        raise ValueError("must end with a file name that contains json, such as train.jsonl: KAITO decides by it")
    return url


VolumeTemplate = Annotated[
    dict[str, Any],
    _checked_as(VolumeSource),
    Field(description="a Kubernetes volume, such as persistentVolumeClaim: {claimName: …}"),
]
ImageTemplate = Annotated[str, _checked_as(Image)]


class Volume(Strict):
    """A volume of the cluster and its mount point on this machine, through which files are exchanged."""

    volume: VolumeTemplate
    path: str = Field(min_length=1, description="the same folder, mounted on this machine")


class Data(Strict):
    """How train.jsonl reaches the cluster: exactly one of volume, url and image."""

    volume: Volume | None = Field(None, description="train.jsonl is written there, in its own folder")
    url: Annotated[str, AfterValidator(_reachable)] | None = Field(
        None, description="where you upload the run's train.jsonl; {name} is the Workspace's name"
    )
    image: ImageTemplate | None = Field(None, description="an image that you built with train.jsonl in /data")
    pull_secrets: list[DnsName] = Field(default_factory=list, description="secrets for pulling image")

    @model_validator(mode="after")
    def _one(self) -> "Data":
        if self.pull_secrets and not self.image:
            raise ValueError("pull_secrets needs image")
        return exactly_one(self, "volume", "url", "image")


class Destination(Strict):
    """Where the adapter goes: a volume, or an image that you unpack into path."""

    volume: VolumeTemplate | None = None
    image: ImageTemplate | None = Field(None, description="pushed by KAITO; unpack its files into path afterwards")
    push_secret: DnsName | None = Field(None, description="secret for pushing image")
    path: str = Field(min_length=1, description="where this machine has the files of the volume or image")

    @model_validator(mode="after")
    def _one(self) -> "Destination":
        if (self.image is None) != (self.push_secret is None):
            raise ValueError("image and push_secret belong together")
        if self.volume and any(source and source.get("readOnly") for source in self.volume.values()):
            raise ValueError("volume: readOnly must be false: the adapter is written there")
        return exactly_one(self, "volume", "image")


class Nodes(Strict):
    """The nodes of the cluster to use."""

    context: str | None = Field(None, description="context of your kubeconfig; by default the current one")
    namespace: DnsLabel = "default"
    instance_type: Instance | None = Field(
        None, description="instance type that KAITO provisions; without it, your own nodes are selected by labels"
    )
    labels: Annotated[dict[LabelKey, LabelValue], AfterValidator(_own_label)] = Field(
        min_length=1, description="labels of the nodes"
    )
    preset: Literal[tuple(PRESETS)] | None = Field(  # type: ignore[valid-type]
        None, description="KAITO's name for the model; by default derived from the model's Hub repository"
    )


class Kaito(Nodes):
    """A Workspace that tunes: https://kaito-project.github.io/kaito/docs/tuning."""

    type: Literal["kaito"]
    gpus: PositiveInt = Field(1, description="GPUs of the instance, among which the global batch is split")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="data type of the base model: float32 as in local runs, or bfloat16 for half the memory"
    )
    data: Data
    output: Destination


class KaitoTechnique(Technique):
    """LoRA, DoRA or QLoRA, trained by a KAITO operator; merging, evaluation and export run here."""

    platform: Kaito

    @model_validator(mode="after")
    def _what_kaito_trains(self) -> "KaitoTechnique":
        if not isinstance(self.adapter, Lora):
            raise ValueError("adapter.type must be lora: KAITO tunes with LoRA, DoRA and QLoRA")
        options = self.adapter.options
        if options.init_lora_weights is not True:
            raise ValueError("adapter.options.init_lora_weights must be true: KAITO has no other initialization")
        if options.modules_to_save:
            raise ValueError("leave out adapter.options.modules_to_save: KAITO doesn't get it")
        if not float(options.lora_alpha).is_integer():
            raise ValueError("adapter.options.lora_alpha must be a whole number for KAITO")
        if self.engine.type != "torch" or self.world_size != 1:
            raise ValueError("leave out engine and world_size: KAITO trains on one node without DeepSpeed")
        if self.base_precision not in ("fp32", "nf4"):
            raise ValueError(f"base_precision {self.base_precision}: KAITO has fp32 and nf4")
        own = {"micro_batch_tokens", "gradient_checkpointing", "optimizer", *FAST_PATHS, *OF_THE_LOOP}
        if given := sorted(own & self.model_dump().keys()):
            raise ValueError(f"leave out {', '.join(given)}: KAITO doesn't get it")
        return self

    def batches(self, rows: int) -> tuple[int, int]:
        """Return the rows per device and the accumulation steps of a global batch of ``rows``.

        Raises:
            ValueError: it can't be split evenly.
        """
        if rows % self.platform.gpus:
            raise ValueError(f"training.batch_rows {rows} can't be split over platform.gpus {self.platform.gpus}")
        share = rows // self.platform.gpus
        each = max(n for n in range(1, min(self.micro_batch_rows, share) + 1) if share % n == 0)
        return each, share // each


class Serving(Nodes):
    """An inference Workspace with the adapter of a run, written by `snakemake kaito_serving`."""

    runtime: Literal["vllm", "transformers"] = "vllm"
    image: ImageTemplate | None = Field(
        None, description="an image that you built with the adapter in /data; {name} is the Workspace's name"
    )
    pull_secrets: list[DnsName] = Field(default_factory=list, description="secrets for pulling image")
    volume: Volume | None = Field(None, description="the adapter is copied there")
    # The operator reads a decimal number; Python writes smaller ones with an exponent.
    strength: float | None = Field(
        None, ge=0.0001, le=1, description="strength of the adapter; needs runtime: transformers"
    )

    @model_validator(mode="after")
    def _possible(self) -> "Serving":
        if self.strength is not None and self.runtime != "transformers":
            raise ValueError("strength needs runtime: transformers")
        return exactly_one(self, "volume", "image")
