"""Azure ML jobs of `type: finetuning` with the azure-ai-ml SDK, and the serverless endpoints that serve their models."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from azure.ai.ml import MLClient
from azure.ai.ml.exceptions import MlException
from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential

from snaketune.core.errors import UserError
from snaketune.platforms.hosted.service import SPLITS, Outcome, fault, needed, redacted
from snaketune.platforms.retries import LONGEST_PAUSE

PLACE = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE")
RETRIES = 8
ENDED = {"Completed": "succeeded", "Failed": "failed", "NotResponding": "failed", "Canceled": "cancelled"}


class PatientTransport(RequestsTransport):
    """The SDK's transport with a limited wait: it would trust any Retry-After, even years from a wrong clock."""

    def sleep(self, duration: float) -> None:
        super().sleep(min(duration, LONGEST_PAUSE))


@contextmanager
def user_errors(host: str) -> Iterator[None]:
    """Turn what the SDK raises after its retries into one message."""
    try:
        yield
    except ClientAuthenticationError as error:
        raise fault("credential", host, error.message) from None
    except HttpResponseError as error:
        kinds = {401: "credential", 403: "credential", 408: "overloaded", 429: "overloaded"}
        code = error.status_code or 0
        raise fault(kinds.get(code, "overloaded" if code >= 500 else "refused"), host, error.message) from None
    except (ServiceRequestError, ServiceResponseError) as error:
        raise fault("unreachable", host, error.message) from None
    except (AzureError, MlException) as error:
        raise fault("refused", host, error.message) from None


def connected() -> tuple[MLClient, str]:
    """Return a client of the workspace that the environment names, and the workspace's name for messages."""
    subscription, group, workspace = needed(*PLACE)
    host = f"azureml:{group}/{workspace}"
    options = {"retry_total": RETRIES, "retry_status": RETRIES, "enable_telemetry": False}
    with user_errors(host):
        credential, transport = DefaultAzureCredential(), PatientTransport()
        return MLClient(credential, subscription, group, workspace, transport=transport, **options), host


class AzureMlService:
    """Implements hosted.Service."""

    def __init__(self, service: dict[str, Any]):
        self.service = service
        self.client, self.host = connected()

    def check(self) -> None:
        with user_errors(self.host):
            found = self.client.workspaces.get(self.client.workspace_name)
        here = (found.location or "").replace(" ", "").lower()
        if here != self.service["region"]:
            raise UserError(
                f"{self.host} is in the region {here}, but the technique says {self.service['region']}; nothing was sent. Name a workspace there, or correct `region`"
            )

    def find(self, key: str) -> str | None:
        with user_errors(self.host):
            try:
                return str(self.client.jobs.get(key).name)
            except ResourceNotFoundError:
                return None

    def create(self, key: str, data: Path, recipe: dict[str, Any]) -> None:
        model = f"azureml://registries/azureml/models/{self.service['model']}/versions/{self.service['version']}"
        options = {"num_train_epochs": recipe["epochs"], **recipe["hyperparameters"]}
        training, validation = (str((data / f"{split}.jsonl").absolute()) for split in SPLITS)
        with user_errors(self.host):
            job = create_finetuning_job(
                model=model,
                task=FineTuningTaskType.CHAT_COMPLETION,
                training_data=training,
                validation_data=validation,
                output_model_name_prefix=key,
                hyperparameters={name: str(value) for name, value in options.items()},
                name=key,
                display_name=key,
                experiment_name="snaketune",
            )
            try:
                self.client.jobs.create_or_update(job)
            except (HttpResponseError, ServiceResponseError):
                # Names are unique: after a lost answer, or in a race, the job exists.
                if not self.find(key):
                    raise

    def state(self, job: str) -> tuple[str, str]:
        with user_errors(self.host):
            found = self.client.jobs.get(job)
        reason = (found.properties or {}).get("ErrorMessage") or found.status
        return ENDED.get(found.status, "running"), redacted(reason)

    def events(self, job: str) -> list[dict[str, Any]]:
        """Return nothing: this SDK has no log of events."""
        return []

    def outcome(self, job: str) -> Outcome:
        with user_errors(self.host):
            found = self.client.jobs.get(job)
        output = (found.outputs or {}).get("registered_model")
        times = [(found.properties or {}).get(name) for name in ("StartTimeUtc", "EndTimeUtc")]
        return Outcome(model=str(getattr(output, "name", None) or job), train_seconds=seconds_between(*times))

    def answerer(self, model: str | None) -> tuple[Any, str]:
        name = self.service["untuned_endpoint" if model is None else "endpoint"]
        with user_errors(self.host):
            try:
                endpoint = self.client.serverless_endpoints.get(name)
            except ResourceNotFoundError:
                what = model or self.service["model"]
                raise UserError(
                    f"{self.host} has no serverless endpoint {name}: deploy the model {what} there, then run snakemake again (docs/hosted.md)"
                ) from None
            if model and model not in str(endpoint.model_id):
                raise UserError(
                    f"the serverless endpoint {name} serves {endpoint.model_id}, not the tuned model {model}: deploy the tuned model, or name another endpoint"
                )
            key = self.client.serverless_endpoints.get_keys(name).primary_key
        address = str(endpoint.scoring_uri).removesuffix("/").removesuffix("/chat/completions").removesuffix("/v1")
        return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=RETRIES), name


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Return the difference of two times of the service's clock, or None if one is missing."""
    try:
        found = datetime.datetime.fromisoformat(str(end)) - datetime.datetime.fromisoformat(str(start))
    except (ValueError, TypeError):
        return None
    return found.total_seconds() if found.total_seconds() > 0 else None
