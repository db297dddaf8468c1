"""Fine-tuning jobs, files and chats with the openai SDK: OpenAI, Azure OpenAI, Foundry projects and compatible services."""

import base64
import binascii
import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from snaketune.core.errors import UserError
from snaketune.platforms.hosted.service import AGAIN, SPLITS, Outcome, fault, needed, redacted, redacted_json
from snaketune.platforms.retries import retrying

RETRIES = 8
# The job may have been created all the same.
UNANSWERED = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)
SCOPE = "https://cognitiveservices.azure.com/.default"
ENDED = {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled"}
COLUMNS = {"step": "step", "train_loss": "loss", "valid_loss": "validation_loss", "full_valid_loss": "validation_loss"}


def client_of(kind: str) -> openai.OpenAI:
    """Return the official client of a kind; endpoint and credential come from the environment."""
    if kind == "openai":
        needed("OPENAI_API_KEY")
        return openai.OpenAI(max_retries=RETRIES)
    from azure.identity import DefaultAzureCredential, get_bearer_token_provider

    if kind == "azure-openai":
        needed("AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION")
        if os.environ.get("AZURE_OPENAI_API_KEY"):
            return openai.AzureOpenAI(max_retries=RETRIES)
        provider = get_bearer_token_provider(DefaultAzureCredential(), SCOPE)
        return openai.AzureOpenAI(azure_ad_token_provider=provider, max_retries=RETRIES)
    from azure.ai.projects import AIProjectClient

    (endpoint,) = needed("AZURE_AI_PROJECT_ENDPOINT")
    project = AIProjectClient(endpoint=endpoint, credential=DefaultAzureCredential())
    found: openai.OpenAI = project.get_openai_client(max_retries=RETRIES)
    return found


@contextmanager
def user_errors(host: str) -> Iterator[None]:
    """Turn what the SDK raises after its retries into one message."""
    try:
        yield
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise fault("credential", host, error) from None
    except openai.RateLimitError as error:
        # Out of credit rather than too fast: asking again won't help.
        raise fault("refused" if error.code == "insufficient_quota" else "overloaded", host, error) from None
    except openai.InternalServerError as error:
        raise fault("overloaded", host, error) from None
    except openai.APIConnectionError as error:
        raise fault("unreachable", host, error.__cause__ or error) from None
    except openai.OpenAIError as error:
        raise fault("refused", host, error) from None
    except RuntimeError as error:
        # Raised by the SDK if a file is still being processed after half an hour.
        raise fault("overloaded", host, error) from None
    except Exception as error:
        # azure-identity isn't installed where another service is used.
        if type(error).__module__.startswith("azure."):
            raise fault("credential", host, error) from None
        raise


class OpenAiService:
    """Implements hosted.Service."""

    def __init__(self, service: dict[str, Any]):
        self.service = service
        with user_errors(service["client"]):
            self.client = client_of(service["client"])
        address = urlsplit(str(self.client.base_url))
        # Without a user's name and password, which an address may hold.
        self.host = f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")

    def check(self) -> None:
        model = self.service["model"]
        with user_errors(self.host), suppress(openai.NotFoundError):
            # Compatible services may have no such list.
            known = [found.id for found in self.client.models.list()]
            if known and model not in known:
                raise UserError(
                    f"{self.host} has no model {model}; nothing was sent. It lists {', '.join(known[:20])}{', …' if len(known) > 20 else ''}"
                )

    def find(self, key: str) -> str | None:
        with user_errors(self.host):
            names = {f"{key}.{split}.jsonl" for split in SPLITS}
            sent = {file.id for file in self.client.files.list() if file.filename in names}
            found = [job for job in self.client.fine_tuning.jobs.list() if self._ours(job, key, sent)]
            # Every process that looks keeps the same one.
            found.sort(key=lambda job: (job.status in ("failed", "cancelled"), job.created_at, job.id))
            for extra in found[1:]:
                if extra.status not in ENDED:
                    print(f"{extra.id} was created by another submission of the same job: cancelling it")
                    with suppress(openai.APIStatusError):
                        self.client.fine_tuning.jobs.cancel(extra.id)
        return str(found[0].id) if found else None

    def _ours(self, job: Any, key: str, sent: set[str]) -> bool:
        """Recognize a job by any of three marks: services differ in what they return."""
        marked = (getattr(job, "metadata", None) or {}).get("snaketune") == key
        return marked or getattr(job, "user_provided_suffix", None) == key or job.training_file in sent

    def create(self, key: str, data: Path, recipe: dict[str, Any]) -> None:
        with user_errors(self.host):
            training, validation = (self._uploaded(key, split, data) for split in SPLITS)
            options = {"n_epochs": recipe["epochs"], **recipe["hyperparameters"]}
            extra: dict[str, Any] = {}
            if self.service["training_type"]:
                extra["extra_body"] = {"trainingType": self.service["training_type"]}
            if self.service["client"] == "openai":
                extra["metadata"] = {"snaketune": key}
            # The SDK would repeat a POST whose answer was lost, and so pay for a second job.
            once = self.client.with_options(max_retries=0)
            try:
                for attempt in retrying(passes, first=0.5):
                    with attempt:
                        if attempt.retry_state.attempt_number > 1 and self.find(key):
                            return
                        once.fine_tuning.jobs.create(
                            model=self.service["model"],
                            training_file=training,
                            validation_file=validation,
                            method={"type": "supervised", "supervised": {"hyperparameters": options}},
                            seed=recipe["seed"],
                            suffix=key,
                            **extra,
                        )
            except UNANSWERED:
                if not self.find(key):
                    raise

    def _uploaded(self, key: str, split: str, data: Path) -> str:
        """Upload a split and return its file id, reusing an earlier upload."""
        path, name = data / f"{split}.jsonl", f"{key}.{split}.jsonl"
        size = path.stat().st_size
        there = [f for f in self.client.files.list() if (f.filename, f.bytes) == (name, size) and f.status != "error"]
        file = there[0] if there else self.client.files.create(file=(name, path.read_bytes()), purpose="fine-tune")
        if file.status not in ("processed", "error"):
            file = self.client.files.wait_for_processing(file.id, poll_interval=1, max_wait_seconds=1800)
        if file.status == "error":
            reason = redacted(getattr(file, "status_details", None) or "no reason given")
            raise UserError(f"{self.host} rejects {path} ({reason}): fix the scenario's data; no job was started")
        return str(file.id)

    def state(self, job: str) -> tuple[str, str]:
        with user_errors(self.host):
            found = self.client.fine_tuning.jobs.retrieve(job)
        why = getattr(found.error, "message", None) if found.error else None
        return ENDED.get(found.status, "running"), redacted(why or found.status)

    def events(self, job: str) -> list[dict[str, Any]]:
        with user_errors(self.host):
            found = [event.to_dict() for event in self.client.fine_tuning.jobs.list_events(job)]
        return [redacted_json(event) for event in reversed(found)]

    def outcome(self, job: str) -> Outcome:
        with user_errors(self.host):
            found = self.client.fine_tuning.jobs.retrieve(job)
            if not found.fine_tuned_model:
                raise UserError(f"{self.host}: the job {job} succeeded but names no model; {AGAIN}")
            content = [self.client.files.content(name).content for name in found.result_files or []]
        # Both times are the service's, so ours may be wrong.
        seconds = (found.finished_at or 0) - found.created_at
        return Outcome(
            model=str(found.fine_tuned_model),
            train_tokens=found.trained_tokens,
            train_seconds=float(seconds) if seconds > 0 else None,
            curve=curve(content[0]) if content else [],
        )

    def answerer(self, model: str | None) -> tuple[Any, str]:
        if model is None:
            return self.client, self.service["untuned_deployment"] or self.service["model"]
        return self.client, self.service["deployment"] or model


def passes(error: BaseException) -> bool:
    """Return True if an error may go away by itself; an exhausted quota doesn't."""
    return isinstance(error, UNANSWERED) and getattr(error, "code", None) != "insufficient_quota"


def curve(content: bytes) -> list[dict[str, Any]]:
    """Return the loss of each step from a result file: CSV, which some services encode in base64."""
    with suppress(binascii.Error, ValueError):
        if not content.lstrip(b"\xef\xbb\xbf").startswith(b"step,"):
            content = base64.b64decode(content, validate=True)
    rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace")))
    return [
        {COLUMNS[name]: float(value) for name, value in row.items() if name in COLUMNS and value not in ("", None)}
        for row in rows
    ]


def answer(client: Any, host: str, name: str, messages: list[dict[str, str]], limit: dict[str, int]) -> dict[str, Any]:
    """Return the greedy answer to a dialogue; one that a content filter withholds is empty."""
    with user_errors(host):
        try:
            found = client.chat.completions.create(model=name, messages=messages, temperature=0, **limit)
        except openai.BadRequestError as error:
            if error.code != "content_filter":
                raise
            return {"prediction": "", "well_formed": False}
    choice = found.choices[0]
    text = (choice.message.content or "").strip()
    return {"prediction": text, "well_formed": choice.finish_reason == "stop" and bool(text)}
