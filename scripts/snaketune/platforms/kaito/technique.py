"""Typed models of a technique that a KAITO operator trains, and of serving an adapter there."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, TypeAdapter, model_validator

from snaketune.config.base import Strict
from snaketune.config.technique import Lora, Technique
from snaketune.platforms.kaito.admission import PRESETS, check_url
from snaketune.platforms.kaito.kubernetes_types import DnsLabel, DnsName, Image, LabelKey, LabelValue, VolumeSource
from snaketune.platforms.kaito.training_config import LAYERS, Dtype

# What a volume, an image and a path may hold, to be another for each run.
PLACES = ("name", "model", "scenario", "technique", "seed")
Instance = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def filled(value: Any, names: dict[str, str]) -> Any:
    """A nested value with the places in its texts replaced, such as {name}."""
    if isinstance(value, dict):
        return {key: filled(inner, names) for key, inner in value.items()}
    if isinstance(value, str):
        for key, name in names.items():
            value = value.replace(f"{{{key}}}", name)
    return value


def _checked_as(kind: Any) -> AfterValidator:
    """Checks a value as it is when its places are filled, and keeps the places."""
    adapter = TypeAdapter(kind)

    def check(value: Any) -> Any:
        adapter.validate_python(filled(value, dict.fromkeys(PLACES, "x")))
        return value

    return AfterValidator(check)


VolumeTemplate = Annotated[
    dict[str, Any],
    _checked_as(VolumeSource),
    Field(description="a volume of Kubernetes, such as persistentVolumeClaim: {claimName: …}"),
]
ImageTemplate = Annotated[str, _checked_as(Image)]


class Volume(Strict):
    """A volume of the cluster, and where this machine sees it: the files go through that."""

    volume: VolumeTemplate
    path: str = Field(min_length=1, description="the same folder, mounted on this machine")


class Data(Strict):
    """How train.jsonl reaches the cluster: exactly one of volume, url and image."""

    volume: Volume | None = Field(None, description="train.jsonl is written there, in a folder of its own")
    url: str | None = Field(None, description="where you put train.jsonl of the run; {name} is its Workspace's")
    image: ImageTemplate | None = Field(None, description="that you built with train.jsonl in /data")
    pull_secrets: list[DnsName] = Field(default_factory=list, description="of image")

    @model_validator(mode="after")
    def _one(self) -> "Data":
        if sum(one is not None for one in (self.volume, self.url, self.image)) != 1:
            raise ValueError("give exactly one of volume, url, image")
        if self.url:
            check_url(self.url)
            if "json" not in self.url.rsplit("/", 1)[-1]:
                raise ValueError("url must end with a name that holds json, such as train.jsonl: KAITO goes by it")
        if self.pull_secrets and not self.image:
            raise ValueError("pull_secrets needs image")
        return self


class Destination(Strict):
    """Where the adapter goes: a volume, or an image that you unpack into path."""

    volume: VolumeTemplate | None = None
    image: ImageTemplate | None = Field(
        None, description="pushed by KAITO; unpack its files into path when it is there"
    )
    push_secret: DnsName | None = Field(None, description="of image")
    path: str = Field(min_length=1, description="where this machine sees the files of the volume, or of the image")

    @model_validator(mode="after")
    def _one(self) -> "Destination":
        if (self.volume is None) == (self.image is None):
            raise ValueError("give exactly one of volume, image")
        if (self.image is None) != (self.push_secret is None):
            raise ValueError("image and push_secret belong together")
        return self


class Nodes(Strict):
    """Which nodes of the cluster run it."""

    context: str | None = Field(None, description="of your kubeconfig; none takes the current one")
    namespace: DnsLabel = "default"
    instance_type: Instance | None = Field(
        None, description="what KAITO provisions; none takes your own nodes, by their labels"
    )
    labels: dict[LabelKey, LabelValue] = Field(min_length=1, description="of the nodes")
    preset: Literal[tuple(PRESETS)] | None = Field(  # type: ignore[valid-type]
        None, description="KAITO's name of the model; none takes that of the model's repository on the hub"
    )


class Kaito(Nodes):
    """A Workspace that tunes: https://kaito-project.github.io/kaito/docs/tuning."""

    type: Literal["kaito"]
    gpus: PositiveInt = Field(1, description="of the instance: the global batch is split over them")
    dtype: Dtype = Field(
        "float32", description="of the base: the local runs' is float32; bfloat16 takes half the memory"
    )
    data: Data
    output: Destination


class KaitoTechnique(Technique):
    """LoRA, DoRA or QLoRA, trained by a KAITO operator; all that follows is made here as of any other."""

    platform: Kaito

    @model_validator(mode="after")
    def _what_kaito_trains(self) -> "KaitoTechnique":
        if not isinstance(self.adapter, Lora):
            raise ValueError("adapter.type must be lora: KAITO tunes with LoRA, DoRA and QLoRA")
        options = self.adapter.options
        if options.init_lora_weights is not True:
            raise ValueError("adapter.options.init_lora_weights must be true: KAITO knows no other start")
        if not float(options.lora_alpha).is_integer():
            raise ValueError("adapter.options.lora_alpha must be a whole number: KAITO takes no other")
        if wrong := sorted(set(options.target_modules) - LAYERS):
            raise ValueError(
                f"adapter.options.target_modules: {', '.join(wrong)} match nothing in KAITO's Phi models, whose layers are fused: {', '.join(sorted(LAYERS))}"
            )
        if self.engine.type != "torch" or self.world_size != 1:
            raise ValueError("engine and world_size are KAITO's: one node, no DeepSpeed; leave them out")
        return self

    def batches(self, rows: int) -> tuple[int, int]:
        """Rows on a GPU at once, and steps whose gradients add up, to a global batch of ``rows``.

        Raises:
            ValueError: it can't be split evenly.
        """
        if rows % self.platform.gpus:
            raise ValueError(f"training.batch_rows {rows} can't be split over platform.gpus {self.platform.gpus}")
        share = rows // self.platform.gpus
        each = max(n for n in range(1, min(self.micro_batch_rows, share) + 1) if share % n == 0)
        return each, share // each


class Serving(Nodes):
    """An inference Workspace with the adapter of a run; `snakemake kaito_serving` writes it."""

    runtime: Literal["vllm", "transformers"] = "vllm"
    image: ImageTemplate | None = Field(
        None, description="that you built with the adapter in /data; {name} is the Workspace's"
    )
    pull_secrets: list[DnsName] = Field(default_factory=list, description="of image")
    volume: Volume | None = Field(None, description="the adapter is copied there")
    strength: PositiveFloat | None = Field(None, le=1, description="share of the adapter; needs runtime: transformers")

    @model_validator(mode="after")
    def _possible(self) -> "Serving":
        if (self.volume is None) == (self.image is None):
            raise ValueError("give exactly one of volume, image")
        if self.strength is not None and self.runtime != "transformers":
            raise ValueError("strength needs runtime: transformers")
        return self
