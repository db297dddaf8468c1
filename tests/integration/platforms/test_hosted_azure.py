"""Hosted jobs by the official azure-ai-ml SDK against a loopback Resource Manager."""

import pytest
from support.services.hosting import Hosted, message, rows, write_rows
from support.services.openai_service import OpenAiService, serving

from snaketune.core.files import read_json, read_jsonl


def test_a_job_without_compute_is_submitted_waited_for_and_fetched(azure: Hosted) -> None:
    ran = azure.submit()
    assert ran.code == 0, ran.output
    job = read_json(azure.folder / "job.json")
    assert job["id"] == job["key"]
    properties = azure.service.jobs[job["key"]]["properties"]
    details = properties["fineTuningDetails"]
    assert details["model"]["uri"] == "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"
    assert details["hyperParameters"] == {"num_train_epochs": "2", "learning_rate": "2e-05"}
    assert (azure.folder / "rows/train.jsonl").read_bytes() in azure.service.blobs.values()
    assert properties.get("computeId") is None

    for ran in (azure.wait(), azure.fetch()):
        assert ran.code == 0, ran.output
    assert read_json(azure.folder / "model.json")["model"].startswith(job["key"])
    assert read_json(azure.folder / "resources.json") == {"train_tokens": None, "seconds": 120.0}


@pytest.mark.parametrize("missing", ["AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE"])
def test_without_a_place_nothing_is_sent(missing: str, azure: Hosted) -> None:
    assert f"{missing}: not set in the environment; nothing was sent" in message(azure.submit(**{missing: None}))
    assert azure.service.requests == []


def test_without_any_credential_of_the_chain_nothing_is_sent(azure: Hosted) -> None:
    nowhere = f"{azure.service.address}/nothing"
    assert "rejects the credential" in message(azure.submit(IDENTITY_ENDPOINT=nowhere))
    assert azure.service.jobs == {}


def test_a_workspace_of_another_region_is_told_before_anything_is_sent(azure: Hosted) -> None:
    azure.service.region = "westeurope"
    told = message(azure.submit())
    assert "is in the region westeurope, but the technique says eastus2; nothing was sent" in told
    assert azure.service.blobs == {}


def test_an_expired_token_is_told_and_a_new_life_goes_on(azure: Hosted) -> None:
    azure.service.token_seconds = -1
    assert "rejects the credential" in message(azure.submit())
    azure.service.token_seconds = 3600
    assert azure.submit().code == 0
    assert len(azure.service.jobs) == 1


def test_a_serverless_endpoint_is_asked_with_its_own_key(azure: Hosted) -> None:
    write_rows(azure.folder / "data", {"test": rows(4)})
    (azure.folder / "model.json").write_text('{"model": "st-1"}')
    asked = ({"endpoint": "tuned", "untuned_endpoint": None}, "--model", "model.json")
    assert "has no serverless endpoint tuned: deploy the model st-1 there" in message(azure.ask(*asked))
    azure.service.endpoints["tuned"] = "azureml://locations/x/models/st-0/versions/1"
    assert "not the tuned model st-1" in message(azure.ask(*asked))
    azure.service.endpoints["tuned"] = "azureml://locations/x/models/st-1/versions/1"
    with serving(OpenAiService({"planted-key-of-tuned"}, models=["tuned"])) as answering:
        azure.service.answers_at = answering.address
        ran = azure.ask(*asked)
    assert ran.code == 0, ran.output
    assert len(read_jsonl(azure.folder / "answers.jsonl")) == 4
    assert "planted" not in (azure.folder / "answers.jsonl").read_text() + ran.output
