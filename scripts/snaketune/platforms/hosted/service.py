"""What every hosted service has in common: the key of a job, its states, and what is told of its faults."""

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from snaketune.core import files
from snaketune.core.errors import UserError

SPLITS = ("train", "validation")
# Services allow few characters in a suffix; Azure OpenAI 18.
KEY_DIGITS = 15
SECRET = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|HEADER)$", re.IGNORECASE)
AGAIN = "nothing is lost: run snakemake again"


@dataclass(frozen=True)
class Outcome:
    """What a finished job left: the model's name, and what the service tells of the training."""

    model: str
    train_tokens: int | None = None
    train_seconds: float | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)


class Service(Protocol):
    """One service through its official SDK; every fault it tells of is a UserError."""

    host: str

    def check(self) -> None:
        """Read only: credential, place and model, before anything is sent."""

    def find(self, key: str) -> str | None:
        """The id of the one job with this key; of several by a race, the oldest, the others are cancelled."""

    def create(self, key: str, data: Path, recipe: dict[str, Any]) -> None:
        """Send the rows and create the job, unless it turns out to be there."""

    def state(self, job: str) -> tuple[str, str]:
        """running, succeeded, failed or cancelled; and what the service says of it."""

    def events(self, job: str) -> list[dict[str, Any]]:
        """What the service logged of the job, the oldest first."""

    def outcome(self, job: str) -> Outcome:
        """Of a job that succeeded."""

    def answerer(self, model: str | None) -> tuple[Any, str]:
        """A client with chat.completions, and whom to ask: the tuned ``model``, or the untuned one."""


def needed(*names: str) -> list[str]:
    """The values of environment variables.

    Raises:
        UserError: one is missing or empty.
    """
    if missing := [name for name in names if not os.environ.get(name)]:
        raise UserError(
            f"{', '.join(missing)}: not set in the environment; nothing was sent. Export it where snakemake runs (docs/hosted.md), never in config/"
        )
    return [os.environ[name] for name in names]


def key_of(recipe: dict[str, Any], data: Path) -> str:
    """The name of a job: of what it is asked to do and of the bytes it trains on, not of our code.

    An edit of a script must find the job that is paid for, not pay for another.
    """
    asked = {name: recipe[name] for name in ("service", "hyperparameters", "epochs", "seed", "attempt")}
    rows = [files.sha256(data / f"{split}.jsonl") for split in SPLITS]
    digest = hashlib.sha256(json.dumps([asked, rows], sort_keys=True).encode()).hexdigest()
    return f"st-{digest[:KEY_DIGITS]}"


def redacted(text: object) -> str:
    """A service's words in one line, without anything secret that it echoes."""
    told = " ".join(str(text).split())
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET.search(name):
            told = told.replace(value, f"[{name}]")
    return re.sub(r"(?i)(bearer )\S+", r"\1[token]", told)


def redacted_json(value: Any) -> Any:
    """A nested value with each of its texts redacted."""
    if isinstance(value, dict):
        return {key: redacted_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redacted_json(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value


def fault(kind: str, host: str, told: object) -> UserError:
    """One message for what went wrong between us and a service."""
    words = {
        "credential": "refuses the credential: it is wrong, expired or lacks the right; set a new one or log in again",
        "refused": "refuses the request",
        "overloaded": "kept answering that it is overloaded, for as long as we asked",
        "unreachable": "can't be reached",
    }
    return UserError(f"{host} {words[kind]} ({redacted(told)[:600]}); {AGAIN}")


def read_job(path: Path, host: str) -> str:
    """The id in a job.json, of this very service.

    Raises:
        UserError: the job is at another service than the environment now names.
    """
    found = files.read_json(path)
    if found["host"] != host:
        raise UserError(
            f"{path}: the job {found['id']} is at {found['host']}, but the environment now names {host}: set it back"
        )
    return str(found["id"])
