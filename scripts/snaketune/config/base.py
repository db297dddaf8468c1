"""The base class and the field types of every configuration model."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NAME, HUB_NAME, COMMIT = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$", r"^[0-9a-f]{40}$"
# What a text that doesn't match is told.
EXPECTED = {
    NAME: "expected the name of a file in config/, without its folder and .yaml",
    HUB_NAME: "expected owner/name, as on the hub's page, without an address",
    COMMIT: "expected a commit: its 40 hexadecimal digits",
}
Name = Annotated[str, Field(pattern=NAME)]
HubName = Annotated[str, Field(pattern=HUB_NAME)]
Commit = Annotated[str, Field(pattern=COMMIT)]
Share = Annotated[float, Field(ge=0, le=1)]


def optional(default: Any, description: str, **constraints: Any) -> Any:
    """Return the field of a key that is in recipes and records only where it isn't its default."""
    return Field(default, exclude_if=lambda found: found == default, description=description, **constraints)


class Strict(BaseModel):
    """An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
