"""Hosted jobs by the official openai SDK against a loopback service."""

import os
import signal
from typing import Any

import pytest
from support.services.hosting import Hosted, Ran, at_once, message, rows, write_rows
from support.services.openai_service import Failure, Fault, OpenAiService, storm

from snaketune.core.files import read_json, read_jsonl, write_json

CHAT = "POST /chat/completions"


def test_a_job_is_submitted_waited_for_and_fetched(openai: Hosted) -> None:
    service, folder = openai.service, openai.folder
    ran = openai.submit()
    assert ran.code == 0, ran.output
    job = read_json(folder / "job.json")
    assert job == {"id": "ftjob-0000", "key": job["key"], "host": service.address, "model": "gpt-test"}
    [body] = service.bodies
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}}
    assert (body["suffix"], body["metadata"], body["seed"]) == (job["key"], {"snaketune": job["key"]}, 1)
    sent = {file["filename"]: service.contents[name] for name, file in service.files.items()}
    assert sent == {
        f"{job['key']}.{s}.jsonl": (folder / f"rows/{s}.jsonl").read_bytes() for s in ("train", "validation")
    }

    ran = openai.wait()
    assert ran.code == 0, ran.output
    assert "ftjob-0000: queued" in ran.output
    assert read_json(folder / "finished.json") == {"id": "ftjob-0000", "status": "succeeded"}
    assert [event["message"] for event in read_jsonl(folder / "events.jsonl")] == ["Step 0", "Step 1", "Step 2"]

    service.encoded = True
    ran = openai.fetch()
    assert ran.code == 0, ran.output
    assert read_json(folder / "model.json")["model"] == f"ft:gpt-test:o:{job['key']}:ftjob-0000"
    assert read_json(folder / "resources.json")["train_tokens"] == service.jobs["ftjob-0000"]["trained_tokens"] > 0
    steps = [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5, "validation_loss": 1.75}]
    assert read_jsonl(folder / "train.jsonl") == steps


@pytest.mark.parametrize("forgets", [False, True])
def test_a_second_submit_takes_the_job_that_is_there(forgets: bool, openai: Hosted) -> None:
    """By its rows, where a service forgets both of its marks."""
    first = openai.submit()
    content = (openai.folder / "job.json").read_bytes()
    (openai.folder / "job.json").unlink()
    if forgets:
        openai.service.set("ftjob-0000", metadata=None, user_provided_suffix=None)
    assert (first.code, openai.submit().code) == (0, 0)
    assert (openai.folder / "job.json").read_bytes() == content
    assert len(openai.service.jobs) == 1


@pytest.mark.parametrize(
    ("changed", "jobs"),
    [
        ({"epochs": 3}, 2),
        ({"seed": 2}, 2),
        ({"attempt": 2}, 2),
        ({"hyperparameters": {}}, 2),
        ({"code": "new", "environment": "new", "price": 9}, 1),
    ],
)
def test_what_is_asked_and_nothing_else_makes_another_job(changed: dict[str, Any], jobs: int, openai: Hosted) -> None:
    openai.submit()
    assert openai.submit({**openai.recipe, **changed}).code == 0
    assert len(openai.service.jobs) == jobs


@pytest.mark.parametrize("fault", [storm("POST /files", 429, 5), storm(".*", 503, 5), Fault("POST /files", 2)])
def test_faults_of_uploads_cost_no_second_job(fault: Fault, openai: Hosted) -> None:
    openai.service.faults.append(fault)
    assert openai.submit().code == 0
    assert len(openai.service.jobs) == 1


def test_of_two_jobs_by_a_race_everybody_keeps_the_oldest(openai: Hosted) -> None:
    service = openai.service
    openai.submit()
    double = {**service.jobs["ftjob-0000"], "id": "ftjob-0001", "created_at": service.now() - 50}
    service.jobs["ftjob-0001"] = double
    (openai.folder / "job.json").unlink()
    assert openai.submit().code == 0
    assert read_json(openai.folder / "job.json")["id"] == "ftjob-0001"
    assert service.jobs["ftjob-0000"]["status"] == "cancelled"


def test_beside_a_submit_in_the_same_folder_one_waits_its_turn(openai: Hosted) -> None:
    ran = at_once(openai.submit, openai.submit)
    refused = [one for one in ran if one.code]
    assert all("another process is using" in message(one) for one in refused)
    assert len(refused) < 2
    assert len(openai.service.alive) == 1


def test_a_file_that_the_service_rejects_is_told_with_its_reason(openai: Hosted) -> None:
    openai.service.reject = "line 3: malformed"
    told = message(openai.submit())
    assert "rejects" in told
    assert "line 3: malformed" in told
    assert openai.service.jobs == {}


def test_a_wait_outlives_storms_and_cuts(openai: Hosted) -> None:
    openai.submit()
    openai.service.faults += [Fault("GET .*"), storm("GET .*", 503, 3), storm("GET .*", 429, 3)]
    ran = openai.wait()
    assert ran.code == 0, ran.output


def test_a_job_of_another_service_is_refused(openai: Hosted) -> None:
    openai.submit()
    path = openai.folder / "job.json"
    write_json(path, {**read_json(path), "host": "https://elsewhere.example"})
    assert "runs at https://elsewhere.example" in message(openai.wait())


def test_clocks_that_differ_by_hours_change_nothing(openai: Hosted) -> None:
    openai.service.clock = -7 * 3600
    # Nobody waits so long, nor asks before.
    busy = Failure(503, "busy", Retry_After="Wed, 21 Oct 2099 07:28:00 GMT")
    openai.service.faults.append(Fault("GET /files", 1, busy))
    assert "overloaded" in message(openai.submit())
    assert openai.submit().code == 0
    assert openai.wait().code == 0
    openai.service.set("ftjob-0000", finished_at=openai.service.jobs["ftjob-0000"]["created_at"] - 100)
    fetched = openai.fetch()
    assert fetched.code == 0, fetched.output
    assert read_json(openai.folder / "resources.json")["seconds"] is None


@pytest.mark.parametrize(
    ("environment", "service", "told"),
    [
        ({"OPENAI_API_KEY": None}, {}, "OPENAI_API_KEY: not set in the environment; nothing was sent"),
        ({"OPENAI_API_KEY": "sk-wrong-planted-6789"}, {}, "rejects the credential"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, {}, "http://127.0.0.1:9 can't be reached"),
        ({}, {"model": "gpt-tset"}, "has no model gpt-tset; nothing was sent. It lists gpt-test, gpt-other"),
    ],
)
def test_what_cant_be_is_told_before_anything_is_sent(
    environment: dict[str, Any], service: dict[str, str], told: str, openai: Hosted
) -> None:
    recipe = {**openai.recipe, "service": {**openai.recipe["service"], **service}}
    assert told in message(openai.submit(recipe, **environment))
    assert openai.service.files == {}


def test_without_leave_nothing_is_sent(openai: Hosted) -> None:
    assert "nothing was sent" in message(openai.submit(confirm="--output=unused"))
    assert openai.service.requests == []


def test_a_dry_run_tells_what_would_go_and_what_it_costs(openai: Hosted) -> None:
    price = {"per_million_training_tokens": 25.0, "currency": "EUR"}
    recipe = {**openai.recipe, "characters_per_token": 4.0, "price": price}
    assert openai.submit(recipe, "--dry-run", OPENAI_API_KEY=None).code == 0
    plan = read_json(openai.folder / "job.json")
    characters = plan["sent"]["train"]["characters"]
    assert plan["sent"]["train"]["rows"] == 12
    assert plan["estimated_training_tokens"] == round(characters / 4 * 2)
    assert plan["estimated_cost"] == {"amount": round(plan["estimated_training_tokens"] * 25e-6, 4), "currency": "EUR"}
    assert openai.submit({**recipe, "price": None}, "--dry-run").code == 0
    assert read_json(openai.folder / "job.json")["estimated_cost"] is None
    assert openai.service.requests == []


def ask(openai: Hosted, at_once: int = 1) -> Ran:
    deployments = {"deployment": None, "untuned_deployment": None, "answer_limit": "max_completion_tokens"}
    return openai.ask(deployments, "--requests-at-once", at_once)


def test_answers_are_asked_once_however_often_it_is_killed(openai: Hosted) -> None:
    service, folder = openai.service, openai.folder
    write_rows(folder / "data", {"test": rows(20)})
    service.faults.append(storm(CHAT, 429, 2))
    assert ask(openai).code == 0
    asked = service.count(CHAT)
    assert asked == 22
    (folder / "answers.jsonl").unlink()
    assert "0 of them new" in ask(openai).output
    assert service.count(CHAT) == asked
    [log] = (folder / "work/answers").iterdir()
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:8]) + '{"key": "cut')
    service.faults.append(Fault(CHAT, then=lambda: os.kill(openai.worker.pids[-1], signal.SIGKILL)))
    assert ask(openai).code is None
    assert ask(openai).code == 0
    # Of the killed life one answer was paid for and lost.
    assert service.count(CHAT) == asked + 20 - 7 + 1
    assert [answer["id"] for answer in read_jsonl(folder / "answers.jsonl")] == [str(n) for n in range(20)]


def test_a_question_that_fails_loses_no_answer(openai: Hosted) -> None:
    write_rows(openai.folder / "data", {"test": rows(6)})
    openai.service.faults.append(Fault(CHAT, 1, Failure(400, "too long")))
    assert "rejects the request" in message(ask(openai, 3))
    assert not (openai.folder / "answers.jsonl").exists()
    assert ask(openai).code == 0
    assert openai.service.count(CHAT) == 7


def test_a_withheld_answer_is_empty_and_ill_formed(openai: Hosted) -> None:
    write_rows(openai.folder / "data", {"test": rows(1)})
    openai.service.faults.append(Fault(CHAT, 1, Failure(400, "filtered", "content_filter")))
    assert ask(openai).code == 0
    [answer] = read_jsonl(openai.folder / "answers.jsonl")
    assert (answer["prediction"], answer["well_formed"]) == ("", False)


@pytest.fixture(params=["azure-openai", "azure-ai-projects"])
def by_chain(request: pytest.FixtureRequest, openai: Hosted) -> Hosted:
    """The same with an Azure client: a managed identity gives the token."""
    service: OpenAiService = openai.service
    own = {
        "azure-openai": {"AZURE_OPENAI_ENDPOINT": service.address, "OPENAI_API_VERSION": "2025-04-01-preview"},
        "azure-ai-projects": {"AZURE_AI_PROJECT_ENDPOINT": f"{service.address}/api/projects/p"},
    }[request.param]
    identity = {"IDENTITY_ENDPOINT": f"{service.address}/identity", "IDENTITY_HEADER": "planted-header"}
    openai.environment = {**identity, **own}
    openai.recipe["service"] = openai.recipe["service"] | {"client": request.param, "training_type": "GlobalStandard"}
    return openai


def test_the_azure_clients_do_the_same_by_the_credential_chain(by_chain: Hosted) -> None:
    ran = by_chain.submit()
    assert ran.code == 0, ran.output
    assert by_chain.submit().code == 0
    [body] = by_chain.service.bodies
    assert body["trainingType"] == "GlobalStandard"
    assert len(by_chain.service.jobs) == 1
    assert "planted" not in ran.output + (by_chain.folder / "job.json").read_text()


def test_a_token_that_has_expired_is_told_and_a_new_life_goes_on(by_chain: Hosted) -> None:
    by_chain.service.faults.append(Fault("GET /files", 1, Failure(401, "the token has expired")))
    assert "rejects the credential: it is wrong, expired" in message(by_chain.submit())
    assert by_chain.submit().code == 0
    assert len(by_chain.service.jobs) == 1


def test_without_any_credential_of_the_chain_nothing_is_sent(by_chain: Hosted) -> None:
    nowhere = f"{by_chain.service.address}/nothing"
    assert "rejects the credential" in message(by_chain.submit(IDENTITY_ENDPOINT=nowhere))
    assert by_chain.service.files == {}
