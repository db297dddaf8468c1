"""Check manifests by the admission rules of the KAITO operator (v0.12, kaito.sh/v1beta1).

The operator's CRD allows typos and impossible combinations, and its webhook reports them only in a
cluster; here each is one message before anything is sent. That is why these are typed models and
not the CRD. They are stricter than the operator where it would train something else than was meant
(`docs/kaito.md` lists these cases).
"""

import ipaddress
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, PositiveInt, ValidationInfo, model_validator

from snaketune.config.base import Strict
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.platforms.kaito.kubernetes_types import (
    DnsLabel,
    DnsName,
    Image,
    LabelKey,
    LabelValue,
    VolumeSource,
    exactly_one,
)
from snaketune.platforms.kaito.training_config import TrainingConfig, TrainingFile

API_VERSION = "kaito.sh/v1beta1"
CONFIG_FILE = "training_config.yaml"
RUNTIME = "kaito.sh/runtime"
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


class Metadata(Strict):
    name: DnsLabel
    namespace: DnsLabel = "default"
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class LabelSelector(Strict):
    matchLabels: dict[LabelKey, LabelValue] = Field(min_length=1, description="without one, every node would match")

    @model_validator(mode="after")
    def _own_label(self) -> "LabelSelector":
        if all(key.split("/")[0].endswith("kaito.sh") for key in self.matchLabels):
            raise ValueError("matchLabels needs a label of your own: the operator ignores its own (kaito.sh/…)")
        return self


class Resource(Strict):
    count: PositiveInt = 1
    instanceType: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    labelSelector: LabelSelector

    @model_validator(mode="after")
    def _nodes(self, info: ValidationInfo) -> "Resource":
        provisions = (info.context or {}).get("auto_provisioning")
        if provisions is True and self.instanceType is None:
            raise ValueError("instanceType is missing: this cluster provisions nodes")
        if provisions is False and self.instanceType is not None:
            raise ValueError("leave out instanceType: this cluster has nodes of its own, selected by labels")
        return self


class PresetOptions(Strict):
    modelAccessSecret: DnsName


class Preset(Strict):
    name: Literal[tuple(PRESETS)]  # type: ignore[valid-type]
    presetOptions: PresetOptions | None = None


def check_url(url: str) -> None:
    """Raise a ValueError for an address that the operator refuses to download from."""
    parts = urlsplit(url)
    host = (parts.hostname or "").split("%")[0]
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{url!r} is no http or https address")
    try:
        inside = not ipaddress.ip_address(host).is_global
    except ValueError:
        inside = host == "localhost" or host.endswith(".localhost") or host in METADATA_HOSTS
    if inside:
        raise ValueError(f"{url!r} is a local or private address, which the operator refuses")


class Input(Strict):
    name: DnsName | None = None
    urls: Annotated[list[str], Field(min_length=1)] | None = None
    image: Image | None = None
    imagePullSecrets: list[DnsName] | None = None
    volumeSource: VolumeSource | None = None

    @model_validator(mode="after")
    def _one(self) -> "Input":
        for url in self.urls or []:
            check_url(url)
        if self.imagePullSecrets and self.image is None:
            raise ValueError("imagePullSecrets needs image")
        return exactly_one(self, "urls", "image", "volumeSource")


class Output(Strict):
    image: Image | None = None
    imagePushSecret: DnsName | None = None
    volumeSource: VolumeSource | None = None

    @model_validator(mode="after")
    def _one(self) -> "Output":
        if (self.image is None) != (self.imagePushSecret is None):
            raise ValueError("image and imagePushSecret belong together")
        if self.volumeSource and self.volumeSource.read_only:
            raise ValueError("volumeSource: readOnly must be false: the adapter is written there")
        return exactly_one(self, "image", "volumeSource")


class Tuning(Strict):
    preset: Preset
    method: Literal["lora", "qlora"]
    config: DnsName
    input: Input
    output: Output


class Source(Strict):
    name: DnsName
    image: Image | None = None
    imagePullSecrets: list[DnsName] | None = None
    volumeSource: VolumeSource | None = None

    @model_validator(mode="after")
    def _one(self) -> "Source":
        return exactly_one(self, "image", "volumeSource")


class Adapter(Strict):
    source: Source
    strength: Annotated[str, Field(pattern=r"^(0(\.\d+)?|1(\.0+)?)$")] | None = Field(
        None, description="0 to 1, as a string"
    )


class Inference(Strict):
    preset: Preset
    adapters: list[Adapter] = Field(default_factory=list, max_length=10)

    @model_validator(mode="after")
    def _names(self) -> "Inference":
        names = [adapter.source.name for adapter in self.adapters]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"adapters: source.name {repeated} is given twice")
        return self


class Workspace(Strict):
    apiVersion: Literal["kaito.sh/v1beta1"]
    kind: Literal["Workspace"]
    metadata: Metadata
    resource: Resource
    tuning: Tuning | None = None
    inference: Inference | None = None

    @model_validator(mode="after")
    def _one_task(self) -> "Workspace":
        if self.tuning and self.resource.count != 1:
            raise ValueError("resource.count must be 1: tuning runs on one node")
        strengths = self.inference and any(adapter.strength is not None for adapter in self.inference.adapters)
        if strengths and self.metadata.annotations.get(RUNTIME) != "transformers":
            raise ValueError(f"inference.adapters: strength needs the annotation {RUNTIME}: transformers")
        return exactly_one(self, "tuning", "inference")


class ConfigMap(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: dict[str, str]


def admit(workspace: Any, config_map: Any = None, auto_provisioning: bool | None = None) -> None:
    """Raise a UserError if the operator or its tuning image would refuse these manifests.

    Args:
        auto_provisioning: whether the cluster provisions nodes; None if unknown.
    """
    context = {"auto_provisioning": auto_provisioning}
    found: Workspace = validated(Workspace, workspace, "Workspace", context)
    if not found.tuning:
        return
    config: ConfigMap = validated(ConfigMap, config_map, "ConfigMap")
    where = found.metadata.namespace, found.tuning.config
    if (config.metadata.namespace, config.metadata.name) != where:
        raise UserError(f"Workspace:\n  tuning.config: there is no ConfigMap {where[1]} in namespace {where[0]}")
    if config.data.keys() != {CONFIG_FILE}:
        raise UserError(f"ConfigMap:\n  data: must contain {CONFIG_FILE} and nothing else")
    try:
        content = yaml.safe_load(config.data[CONFIG_FILE])
    except yaml.YAMLError as error:
        raise UserError(f"ConfigMap:\n  data.{CONFIG_FILE}: not YAML ({getattr(error, 'problem', error)})") from None
    training: TrainingConfig = validated(TrainingFile, content, CONFIG_FILE).training_config
    quantized = training.QuantizationConfig.load_in_4bit or training.QuantizationConfig.load_in_8bit
    if quantized != (found.tuning.method == "qlora"):
        raise UserError(
            f"{CONFIG_FILE}:\n  training_config.QuantizationConfig: method {found.tuning.method} needs load_in_4bit or load_in_8bit {'false' if quantized else 'true'}"
        )
