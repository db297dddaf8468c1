"""What all hosted services share: job keys, job states and error reporting."""

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
    """The result of a finished job: the model's name, and what the service reports about the training."""

    model: str
    train_tokens: int | None = None
    train_seconds: float | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)


class Service(Protocol):
    """One service through its official SDK; every error is raised as a UserError."""

    host: str

    def check(self) -> None:
        """Check credential, region and model without sending anything."""

    def find(self, key: str) -> str | None:
        """Return the id of the job with this key; if a race created several, keep the oldest and cancel the others."""

    def create(self, key: str, data: Path, recipe: dict[str, Any]) -> None:
        """Upload the rows and create the job, unless it exists by then."""

    def state(self, job: str) -> tuple[str, str]:
        """Return running, succeeded, failed or cancelled, and the service's own words."""

    def events(self, job: str) -> list[dict[str, Any]]:
        """Return the service's log of the job, oldest first."""

    def outcome(self, job: str) -> Outcome:
        """Return the result of a job that succeeded."""

    def answerer(self, model: str | None) -> tuple[Any, str]:
        """Return a client with chat.completions, and the model name to ask: the tuned ``model``, or the base model."""


def needed(*names: str) -> list[str]:
    """Return the values of environment variables.

    Raises:
        UserError: one is missing or empty.
    """
    if missing := [name for name in names if not os.environ.get(name)]:
        raise UserError(
            f"{', '.join(missing)}: not set in the environment; nothing was sent. Export it in the shell that runs snakemake (docs/hosted.md), never write it to config/"
        )
    return [os.environ[name] for name in names]


def key_of(recipe: dict[str, Any], data: Path) -> str:
    """Return the name of a job, a hash of its parameters and training rows but not of our code.

    After an edit of a script, the job that is already paid for must be found, not another one started.
    """
    asked = {name: recipe[name] for name in ("service", "hyperparameters", "epochs", "seed", "attempt")}
    rows = [files.sha256(data / f"{split}.jsonl") for split in SPLITS]
    digest = hashlib.sha256(json.dumps([asked, rows], sort_keys=True).encode()).hexdigest()
    return f"st-{digest[:KEY_DIGITS]}"


def redacted(text: object) -> str:
    """Return a service's message on one line, with every secret that it echoes masked."""
    line = " ".join(str(text).split())
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET.search(name):
            line = line.replace(value, f"[{name}]")
    return re.sub(r"(?i)(bearer )\S+", r"\1[token]", line)


def redacted_json(value: Any) -> Any:
    """Return a nested value with every string redacted."""
    if isinstance(value, dict):
        return {key: redacted_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redacted_json(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value


def fault(kind: str, host: str, reason: object) -> UserError:
    """Return the UserError for a failed call of a service."""
    words = {
        "credential": "rejects the credential: it is wrong, expired or lacks a permission; set a new one or log in again",
        "refused": "rejects the request",
        "overloaded": "is overloaded and stayed so through all retries",
        "unreachable": "can't be reached",
    }
    passing = kind in ("overloaded", "unreachable")
    return UserError(f"{host} {words[kind]} ({redacted(reason)[:600]}); {AGAIN}", passing)


def read_job(path: Path, host: str) -> str:
    """Return the id in a job.json of this service.

    Raises:
        UserError: the job runs at another service than the environment names now.
    """
    found = files.read_json(path)
    if found["host"] != host:
        raise UserError(
            f"{path}: the job {found['id']} runs at {found['host']}, but the environment now names {host}: set it back"
        )
    return str(found["id"])
