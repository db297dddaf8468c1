"""Field types and models of Kubernetes objects: labels, images and volumes."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from snaketune.config.base import Strict

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
DnsName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
]
Image = Annotated[
    str,
    Field(
        pattern=r"^[a-zA-Z0-9.-]+(:\d+)?(/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
    ),
]


def exactly_one(part: Any, *keys: str) -> Any:
    """Return ``part``, or raise a ValueError unless exactly one of these keys is given."""
    given = [key for key in keys if getattr(part, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(keys)}; found {' and '.join(given) or 'none'}")
    return part


class Claim(Strict):
    claimName: DnsName
    readOnly: bool = False


class Nfs(Strict):
    server: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(pattern=r"^/")]
    readOnly: bool = False


class AzureFile(Strict):
    secretName: DnsName
    shareName: Annotated[str, Field(min_length=1)]
    readOnly: bool = False


class HostPath(Strict):
    path: Annotated[str, Field(pattern=r"^/")]
    type: Literal["", "Directory", "DirectoryOrCreate"] = ""


class VolumeSource(Strict):
    """A Kubernetes volume that several pods can mount: exactly one of these kinds."""

    persistentVolumeClaim: Claim | None = None
    nfs: Nfs | None = None
    azureFile: AzureFile | None = None
    hostPath: HostPath | None = None

    @model_validator(mode="after")
    def _one(self) -> "VolumeSource":
        return exactly_one(self, "persistentVolumeClaim", "nfs", "azureFile", "hostPath")
