"""Hosted jobs by the official azure-ai-ml SDK against a loopback Resource Manager: one job, one message."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.services.azure_service import AzureService, azure_serving
from support.services.hosting import Ran, Worker, at_once, converted, message, rows, write_rows
from support.services.openai_service import Failure, Fault, OpenAiService, serving, storm

from snaketune.core.files import read_json, read_jsonl

SERVICE = {"type": "azure-ml", "model": "Phi-4-mini-instruct", "version": "1", "region": "eastus2", "unlisted": False}
RECIPE = {"service": SERVICE, "hyperparameters": {"learning_rate": 2e-5}, "epochs": 2, "seed": 1, "attempt": 1}
CREATE = "PUT /jobs/.*"
WAITING = ["--job", "job.json", "--output", "finished.json", "--events", "events.jsonl", "--poll-seconds", "0.01"]


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureService]:
    with azure_serving(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def run(worker: Worker, service: AzureService, tmp_path: Path) -> Any:
    def call(script: str, *arguments: object, directory: Path = tmp_path, **environment: str | None) -> Ran:
        return worker(script, *arguments, directory=directory, **service.environment() | environment)

    return call


@pytest.fixture
def submit(run: Any, tmp_path: Path) -> Any:
    converted(tmp_path / "rows")

    def call(recipe: Any = RECIPE, directory: Path = tmp_path, **environment: Any) -> Ran:
        arguments = ["--recipe", json.dumps(recipe), "--data-directory", tmp_path / "rows", "--confirm"]
        return run(
            "submit_hosted.py", *arguments, "--output", directory / "job.json", directory=directory, **environment
        )

    return call


def test_a_job_without_compute_is_submitted_waited_for_and_fetched(
    service: AzureService, run: Any, submit: Any, tmp_path: Path
) -> None:
    ran = submit()
    assert ran.code == 0, ran.output
    job = read_json(tmp_path / "job.json")
    assert job["id"] == job["key"]
    details = service.jobs[job["key"]]["properties"]["fineTuningDetails"]
    assert details["model"]["uri"] == "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"
    assert details["hyperParameters"] == {"num_train_epochs": "2", "learning_rate": "2e-05"}
    assert (tmp_path / "rows/train.jsonl").read_bytes() in service.blobs.values()
    assert service.jobs[job["key"]]["properties"].get("computeId") is None

    ran = run("wait_hosted.py", "--recipe", json.dumps(RECIPE), *WAITING)
    assert ran.code == 0, ran.output
    ran = run("fetch_hosted.py", "--recipe", json.dumps(RECIPE), "--run-directory", ".", "--data-directory", "rows")
    assert ran.code == 0, ran.output
    assert read_json(tmp_path / "model.json")["model"].startswith(job["key"])
    assert read_json(tmp_path / "resources.json") == {"train_tokens": None, "seconds": 120.0}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("route", ["GET /jobs/.*", CREATE])
def test_a_storm_that_ends_is_waited_out(status: int, route: str, service: AzureService, submit: Any) -> None:
    service.faults.append(storm(route, status, 5))
    ran = submit()
    assert ran.code == 0, ran.output
    assert len(service.jobs) == 1


def test_a_storm_without_end_is_told(service: AzureService, submit: Any, tmp_path: Path) -> None:
    service.faults.append(storm("GET /jobs/.*", 503, 1000))
    assert "is overloaded and stayed so" in message(submit())
    service.faults.clear()
    assert submit().code == 0
    assert len(service.jobs) == 1


def test_an_answer_lost_after_the_job_was_created_makes_no_second(service: AzureService, submit: Any) -> None:
    service.faults.append(Fault(CREATE))
    assert submit().code == 0
    assert len(service.jobs) == 1


def test_killed_after_the_job_was_created_the_next_life_finds_it(
    service: AzureService, submit: Any, worker: Worker, tmp_path: Path
) -> None:
    service.faults.append(Fault(CREATE, then=lambda: os.kill(worker.pids[-1], signal.SIGKILL)))
    assert submit().code is None
    assert not (tmp_path / "job.json").exists()
    assert submit().code == 0
    assert len(service.jobs) == 1


def test_two_submits_at_once_end_with_one_job(service: AzureService, submit: Any, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    ran = at_once(*(lambda folder=folder: submit(directory=folder) for folder in folders))
    assert [one.code for one in ran] == [0, 0], ran
    assert len(service.jobs) == 1


@pytest.mark.parametrize("ending", ["Failed", "Canceled"])
def test_a_job_that_ends_badly_is_told(ending: str, service: AzureService, run: Any, submit: Any) -> None:
    service.states = [ending]
    submit()
    told = message(run("wait_hosted.py", "--recipe", json.dumps(RECIPE), *WAITING))
    assert "violate the content policy" in told or "as cancelled" in told
    assert submit().code == 0
    assert len(service.jobs) == 1


def test_a_retry_after_of_a_wrong_clock_is_not_waited_for(service: AzureService, submit: Any) -> None:
    service.faults.append(Fault("GET /jobs/.*", 1, Failure(503, "busy", Retry_After="Wed, 21 Oct 2099 07:28:00 GMT")))
    assert submit().code == 0


@pytest.mark.parametrize("missing", ["AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE"])
def test_without_a_place_nothing_is_sent(missing: str, service: AzureService, submit: Any) -> None:
    assert f"{missing}: not set in the environment; nothing was sent" in message(submit(**{missing: None}))
    assert service.requests == []


def test_without_any_credential_of_the_chain_nothing_is_sent(service: AzureService, submit: Any) -> None:
    assert "rejects the credential" in message(submit(IDENTITY_ENDPOINT=f"{service.address}/nothing"))
    assert service.jobs == {}


def test_a_workspace_of_another_region_is_told_before_anything_is_sent(service: AzureService, submit: Any) -> None:
    service.region = "westeurope"
    assert "is in the region westeurope, but the technique says eastus2; nothing was sent" in message(submit())
    assert service.blobs == {}


def test_an_expired_token_is_told_and_a_new_life_goes_on(service: AzureService, submit: Any) -> None:
    service.token_seconds = -1
    assert "rejects the credential" in message(submit())
    service.token_seconds = 3600
    assert submit().code == 0
    assert len(service.jobs) == 1


def test_a_serverless_endpoint_is_asked_with_its_own_key(service: AzureService, run: Any, tmp_path: Path) -> None:
    write_rows(tmp_path / "data", {"test": rows(4)})
    (tmp_path / "model.json").write_text('{"model": "st-1"}')
    recipe = {"service": {**SERVICE, "endpoint": "tuned", "untuned_endpoint": None}, "max_new_tokens": 8}
    asking = ["--recipe", json.dumps(recipe), "--model", "model.json", "--rows", "data/test.jsonl", "--work", "work/a"]
    asking += ["--confirm", "--output", "answers.jsonl"]
    assert "has no serverless endpoint tuned: deploy the model st-1 there" in message(run("ask_hosted.py", *asking))
    service.endpoints["tuned"] = "azureml://locations/x/models/st-0/versions/1"
    assert "not the tuned model st-1" in message(run("ask_hosted.py", *asking))
    service.endpoints["tuned"] = "azureml://locations/x/models/st-1/versions/1"
    with serving(OpenAiService({"planted-key-of-tuned"}, models=["tuned"])) as answering:
        service.answers_at = answering.address
        ran = run("ask_hosted.py", *asking)
    assert ran.code == 0, ran.output
    assert len(read_jsonl(tmp_path / "answers.jsonl")) == 4
    assert "planted" not in (tmp_path / "answers.jsonl").read_text() + ran.output
