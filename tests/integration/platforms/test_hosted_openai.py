"""Hosted jobs by the official openai SDK against a loopback service: one job, one message, nothing lost.

A loopback proves what the SDK sends and how its answers are taken, not that a real service agrees.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.services.hosting import SECRET, Ran, Worker, at_once, converted, message, rows, write_rows
from support.services.openai_service import Failure, Fault, OpenAiService, serving, storm

from snaketune.core.files import read_json, read_jsonl, write_json

SERVICE = {"type": "openai-compatible", "client": "openai", "model": "gpt-test", "training_type": None}
RECIPE = {"service": SERVICE, "hyperparameters": {"batch_size": 4}, "epochs": 2, "seed": 1, "attempt": 1}
ASKING = {
    "service": {**SERVICE, "deployment": None, "untuned_deployment": None, "answer_limit": "max_completion_tokens"}
}
CREATE = "POST /fine_tuning/jobs"


@pytest.fixture
def service() -> Iterator[OpenAiService]:
    with serving(OpenAiService({SECRET})) as found:
        yield found


@pytest.fixture
def run(worker: Worker, service: OpenAiService, tmp_path: Path) -> Any:
    """A script in a folder of its own, with the service's address and key in its environment."""

    def call(script: str, *arguments: object, directory: Path = tmp_path, **environment: str | None) -> Ran:
        named = {"OPENAI_BASE_URL": f"{service.address}/v1", "OPENAI_API_KEY": SECRET, **environment}
        return worker(script, *arguments, directory=directory, **named)

    return call


@pytest.fixture
def submit(run: Any, tmp_path: Path) -> Any:
    converted(tmp_path / "rows")

    def call(recipe: Any = RECIPE, confirm: str = "--confirm", directory: Path = tmp_path, **environment: Any) -> Ran:
        arguments = ["--recipe", json.dumps(recipe), "--data-directory", tmp_path / "rows", confirm]
        arguments += ["--output", directory / "job.json"]
        return run("submit_hosted.py", *arguments, directory=directory, **environment)

    return call


def test_a_job_is_submitted_waited_for_and_fetched(
    service: OpenAiService, run: Any, submit: Any, tmp_path: Path
) -> None:
    ran = submit()
    assert ran.code == 0, ran.output
    job = read_json(tmp_path / "job.json")
    assert job == {"id": "ftjob-0000", "key": job["key"], "host": service.address, "model": "gpt-test"}
    [body] = service.bodies
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}}
    assert (body["suffix"], body["metadata"], body["seed"]) == (job["key"], {"snaketune": job["key"]}, 1)
    sent = {file["filename"]: service.contents[name] for name, file in service.files.items()}
    assert sent == {
        f"{job['key']}.{s}.jsonl": (tmp_path / f"rows/{s}.jsonl").read_bytes() for s in ("train", "validation")
    }

    recipe = ["--recipe", json.dumps(RECIPE)]
    waiting = ["--job", "job.json", "--output", "finished.json", "--events", "events.jsonl", "--poll-seconds", "0.01"]
    ran = run("wait_hosted.py", *recipe, *waiting)
    assert ran.code == 0, ran.output
    assert "ftjob-0000: queued" in ran.output
    assert read_json(tmp_path / "finished.json") == {"id": "ftjob-0000", "status": "succeeded"}
    assert [event["message"] for event in read_jsonl(tmp_path / "events.jsonl")] == ["Step 0", "Step 1", "Step 2"]

    service.encoded = True
    ran = run("fetch_hosted.py", *recipe, "--run-directory", ".", "--data-directory", "rows")
    assert ran.code == 0, ran.output
    assert read_json(tmp_path / "model.json")["model"] == f"ft:gpt-test:o:{job['key']}:ftjob-0000"
    assert read_json(tmp_path / "resources.json")["train_tokens"] == service.jobs["ftjob-0000"]["trained_tokens"] > 0
    assert read_jsonl(tmp_path / "train.jsonl") == [
        {"step": 1, "loss": 2.5},
        {"step": 2, "loss": 1.5, "validation_loss": 1.75},
    ]


def test_a_second_submit_takes_the_job_that_is_there(service: OpenAiService, submit: Any, tmp_path: Path) -> None:
    first = submit()
    content = (tmp_path / "job.json").read_bytes()
    (tmp_path / "job.json").unlink()
    assert (first.code, submit().code) == (0, 0)
    assert (tmp_path / "job.json").read_bytes() == content
    assert len(service.jobs) == 1


@pytest.mark.parametrize("forgotten", ["metadata", "user_provided_suffix"])
def test_a_job_is_known_by_its_rows_where_a_service_forgets_its_marks(
    forgotten: str, service: OpenAiService, submit: Any
) -> None:
    submit()
    service.set("ftjob-0000", metadata=None, user_provided_suffix=None)
    assert submit().code == 0
    assert len(service.jobs) == 1


@pytest.mark.parametrize("changed", [{"epochs": 3}, {"seed": 2}, {"attempt": 2}, {"hyperparameters": {}}])
def test_another_job_is_another(changed: dict[str, Any], service: OpenAiService, submit: Any) -> None:
    submit()
    assert submit({**RECIPE, **changed}).code == 0
    assert len(service.jobs) == 2


def test_code_environment_and_price_start_no_other_job(service: OpenAiService, submit: Any) -> None:
    submit()
    assert submit({**RECIPE, "code": "new", "environment": "new", "price": 9}).code == 0
    assert len(service.jobs) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("route", ["GET /files", "POST /files", CREATE, ".*"])
def test_a_storm_that_ends_is_waited_out(status: int, route: str, service: OpenAiService, submit: Any) -> None:
    service.faults.append(storm(route, status, 5))
    ran = submit()
    assert ran.code == 0, ran.output
    assert len(service.jobs) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("route", ["GET /files", CREATE])
def test_a_storm_without_end_is_told_and_the_next_life_goes_on(
    status: int, route: str, service: OpenAiService, submit: Any, tmp_path: Path
) -> None:
    service.faults.append(storm(route, status, 1000))
    assert "is overloaded and stayed so" in message(submit())
    assert not (tmp_path / "job.json").exists()
    service.faults.clear()
    assert submit().code == 0
    assert len(service.jobs) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_an_answer_lost_after_the_job_was_created_makes_no_second(
    times: int, service: OpenAiService, submit: Any, tmp_path: Path
) -> None:
    service.faults.append(Fault(CREATE, times))
    assert submit().code == 0
    assert len(service.jobs) == 1
    assert read_json(tmp_path / "job.json")["id"] == "ftjob-0000"


def test_lost_answers_to_uploads_cost_no_second_job(service: OpenAiService, submit: Any) -> None:
    service.faults.append(Fault("POST /files", 2))
    assert submit().code == 0
    assert len(service.jobs) == 1


def test_killed_after_the_job_was_created_the_next_life_finds_it(
    service: OpenAiService, submit: Any, worker: Worker, tmp_path: Path
) -> None:
    service.faults.append(Fault(CREATE, then=lambda: os.kill(worker.pids[-1], signal.SIGKILL)))
    assert submit().code is None
    assert not (tmp_path / "job.json").exists()
    assert len(service.jobs) == 1
    assert submit().code == 0
    assert len(service.jobs) == 1
    assert read_json(tmp_path / "job.json")["id"] == "ftjob-0000"


def test_two_submits_at_once_keep_one_job(service: OpenAiService, submit: Any, tmp_path: Path) -> None:
    """In folders of their own, as on two machines: no lock of ours holds them apart."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    ran = at_once(*(lambda folder=folder: submit(directory=folder) for folder in folders))
    assert [one.code for one in ran] == [0, 0], ran
    assert len(service.alive) == 1
    assert {read_json(folder / "job.json")["id"] for folder in folders} == {service.alive[0]["id"]}


def test_of_two_jobs_by_a_race_everybody_keeps_the_oldest(service: OpenAiService, submit: Any, tmp_path: Path) -> None:
    submit()
    double = {**service.jobs["ftjob-0000"], "id": "ftjob-0001", "created_at": service.now() - 50}
    service.jobs["ftjob-0001"] = double
    (tmp_path / "job.json").unlink()
    assert submit().code == 0
    assert read_json(tmp_path / "job.json")["id"] == "ftjob-0001"
    assert {name: job["status"] for name, job in service.jobs.items()}["ftjob-0000"] == "cancelled"


def test_beside_a_submit_in_the_same_folder_one_waits_its_turn(service: OpenAiService, submit: Any) -> None:
    ran = at_once(submit, submit)
    refused = [one for one in ran if one.code]
    assert all("another process is at work" in message(one) for one in refused)
    assert len(refused) < 2
    assert len(service.alive) == 1


def test_a_file_that_the_service_rejects_is_told_with_its_reason(service: OpenAiService, submit: Any) -> None:
    service.reject = "line 3: malformed"
    told = message(submit())
    assert "rejects" in told
    assert "line 3: malformed" in told
    assert service.jobs == {}


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_job_that_ends_badly_is_told_and_never_submitted_again(
    ending: str, service: OpenAiService, run: Any, submit: Any, tmp_path: Path
) -> None:
    service.ending = ending
    submit()
    waiting = ["--job", "job.json", "--output", "finished.json", "--events", "events.jsonl", "--poll-seconds", "0.01"]
    told = message(run("wait_hosted.py", "--recipe", json.dumps(RECIPE), *waiting))
    assert f"as {ending} (row 7 violates the usage policies)" in told
    assert "raise `attempt`" in told
    assert not (tmp_path / "finished.json").exists()
    assert submit().code == 0
    assert len(service.jobs) == 1


def test_a_wait_outlives_storms_and_cuts(service: OpenAiService, run: Any, submit: Any) -> None:
    submit()
    service.faults += [Fault("GET .*"), storm("GET .*", 503, 3), storm("GET .*", 429, 3)]
    waiting = ["--job", "job.json", "--output", "finished.json", "--events", "events.jsonl", "--poll-seconds", "0.01"]
    ran = run("wait_hosted.py", "--recipe", json.dumps(RECIPE), *waiting)
    assert ran.code == 0, ran.output


def test_a_job_of_another_service_is_refused(run: Any, submit: Any, tmp_path: Path) -> None:
    submit()
    write_json(tmp_path / "job.json", {**read_json(tmp_path / "job.json"), "host": "https://elsewhere.example"})
    waiting = ["--job", "job.json", "--output", "finished.json", "--events", "events.jsonl"]
    assert "runs at https://elsewhere.example" in message(
        run("wait_hosted.py", "--recipe", json.dumps(RECIPE), *waiting)
    )


def test_clocks_that_differ_by_hours_change_nothing(
    service: OpenAiService, run: Any, submit: Any, tmp_path: Path
) -> None:
    service.clock = -7 * 3600
    # Nobody waits so long, nor asks before.
    service.faults.append(Fault("GET /files", 1, Failure(503, "busy", Retry_After="Wed, 21 Oct 2099 07:28:00 GMT")))
    assert "overloaded" in message(submit())
    assert submit().code == 0
    waiting = ["--job", "job.json", "--output", "finished.json", "--events", "events.jsonl", "--poll-seconds", "0.01"]
    assert run("wait_hosted.py", "--recipe", json.dumps(RECIPE), *waiting).code == 0
    service.set("ftjob-0000", finished_at=service.jobs["ftjob-0000"]["created_at"] - 100)
    fetched = run("fetch_hosted.py", "--recipe", json.dumps(RECIPE), "--run-directory", ".", "--data-directory", "rows")
    assert fetched.code == 0, fetched.output
    assert read_json(tmp_path / "resources.json")["seconds"] is None


def test_without_a_key_nothing_is_sent(service: OpenAiService, submit: Any) -> None:
    assert "OPENAI_API_KEY: not set in the environment; nothing was sent" in message(submit(OPENAI_API_KEY=None))
    assert service.requests == []


def test_a_wrong_key_is_told_without_showing_it(service: OpenAiService, submit: Any) -> None:
    wrong = "sk-wrong-0123456789"
    ran = submit(OPENAI_API_KEY=wrong)
    assert "rejects the credential" in message(ran)
    assert wrong not in ran.output
    assert service.files == {}


def test_an_unknown_model_is_told_before_anything_is_sent(service: OpenAiService, submit: Any) -> None:
    told = message(submit({**RECIPE, "service": {**SERVICE, "model": "gpt-tset"}}))
    assert "has no model gpt-tset; nothing was sent. It lists gpt-test, gpt-other" in told
    assert service.files == {}


def test_a_service_that_is_not_there_is_told(submit: Any) -> None:
    told = message(submit(OPENAI_BASE_URL="http://127.0.0.1:9/v1"))
    assert "http://127.0.0.1:9 can't be reached" in told


def test_without_leave_nothing_is_sent(service: OpenAiService, submit: Any) -> None:
    assert "nothing was sent" in message(submit(confirm="--output=unused"))
    assert service.requests == []


def test_a_dry_run_tells_what_would_go_and_what_it_costs(service: OpenAiService, submit: Any, tmp_path: Path) -> None:
    price = {"per_million_training_tokens": 25.0, "currency": "EUR"}
    recipe = {**RECIPE, "characters_per_token": 4.0, "price": price}
    assert submit(recipe, "--dry-run", OPENAI_API_KEY=None).code == 0
    plan = read_json(tmp_path / "job.json")
    characters = plan["sent"]["train"]["characters"]
    assert plan["sent"]["train"]["rows"] == 12
    assert plan["estimated_training_tokens"] == round(characters / 4 * 2)
    assert plan["estimated_cost"] == {"amount": round(plan["estimated_training_tokens"] * 25e-6, 4), "currency": "EUR"}
    assert submit({**recipe, "price": None}, "--dry-run").code == 0
    assert read_json(tmp_path / "job.json")["estimated_cost"] is None
    assert service.requests == []


def ask(run: Any, tmp_path: Path, *more: object, **environment: Any) -> Ran:
    recipe = json.dumps({**ASKING, "max_new_tokens": 8})
    arguments = ["--rows", "data/test.jsonl", "--work", "work/answers", "--confirm", "--output", "answers.jsonl"]
    return run("ask_hosted.py", "--recipe", recipe, *more, *arguments, **environment)


def test_answers_are_asked_once_however_often_it_is_killed(
    service: OpenAiService, run: Any, worker: Worker, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data", {"test": rows(20)})
    kill = Fault("POST /chat/completions", then=lambda: os.kill(worker.pids[-1], signal.SIGKILL))
    at_once_one = ["--requests-at-once", 1]
    service.faults += [storm("POST /chat/completions", 429, 2), storm("never", 500, 1)]
    assert ask(run, tmp_path, *at_once_one).code == 0
    asked = service.count("POST /chat/completions")
    assert asked == 22
    (tmp_path / "answers.jsonl").unlink()
    assert "0 of them new" in ask(run, tmp_path, *at_once_one).output
    assert service.count("POST /chat/completions") == asked
    [log] = (tmp_path / "work/answers").iterdir()
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:8]) + '{"key": "cut')
    service.faults.append(kill)
    assert ask(run, tmp_path, *at_once_one).code is None
    assert ask(run, tmp_path, *at_once_one).code == 0
    # Of the killed life one answer was paid for and lost.
    assert service.count("POST /chat/completions") == asked + 20 - 7 + 1
    assert [answer["id"] for answer in read_jsonl(tmp_path / "answers.jsonl")] == [str(n) for n in range(20)]


def test_a_question_that_fails_loses_no_answer(service: OpenAiService, run: Any, tmp_path: Path) -> None:
    write_rows(tmp_path / "data", {"test": rows(6)})
    service.faults.append(Fault("POST /chat/completions", 1, Failure(400, "too long")))
    assert "rejects the request" in message(ask(run, tmp_path, "--requests-at-once", 3))
    assert not (tmp_path / "answers.jsonl").exists()
    assert ask(run, tmp_path).code == 0
    assert service.count("POST /chat/completions") <= 7 + 3


def test_a_withheld_answer_is_empty_and_ill_formed(service: OpenAiService, run: Any, tmp_path: Path) -> None:
    write_rows(tmp_path / "data", {"test": rows(1)})
    service.faults.append(Fault("POST /chat/completions", 1, Failure(400, "filtered", "content_filter")))
    assert ask(run, tmp_path).code == 0
    [answer] = read_jsonl(tmp_path / "answers.jsonl")
    assert (answer["prediction"], answer["well_formed"]) == ("", False)


def of_azure(service: OpenAiService, client: str) -> dict[str, str | None]:
    """The environment of the Azure clients: a managed identity gives the token."""
    own = {
        "azure-openai": {"AZURE_OPENAI_ENDPOINT": service.address, "OPENAI_API_VERSION": "2025-04-01-preview"},
        "azure-ai-projects": {"AZURE_AI_PROJECT_ENDPOINT": f"{service.address}/api/projects/p"},
    }[client]
    identity = {"IDENTITY_ENDPOINT": f"{service.address}/identity", "IDENTITY_HEADER": "planted-header"}
    return {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, **identity, **own}


@pytest.mark.parametrize("client", ["azure-openai", "azure-ai-projects"])
def test_the_azure_clients_do_the_same_by_the_credential_chain(
    client: str, service: OpenAiService, submit: Any, tmp_path: Path
) -> None:
    recipe = {**RECIPE, "service": {**SERVICE, "client": client, "training_type": "GlobalStandard"}}
    ran = submit(recipe, **of_azure(service, client))
    assert ran.code == 0, ran.output
    assert submit(recipe, **of_azure(service, client)).code == 0
    [body] = service.bodies
    assert body["trainingType"] == "GlobalStandard"
    assert len(service.jobs) == 1
    assert "planted" not in ran.output + (tmp_path / "job.json").read_text()


def test_a_token_that_has_expired_is_told_and_a_new_life_goes_on(service: OpenAiService, submit: Any) -> None:
    recipe = {**RECIPE, "service": {**SERVICE, "client": "azure-openai"}}
    service.faults.append(Fault("GET /files", 1, Failure(401, "the token has expired")))
    told = message(submit(recipe, **of_azure(service, "azure-openai")))
    assert "rejects the credential: it is wrong, expired" in told
    assert submit(recipe, **of_azure(service, "azure-openai")).code == 0
    assert len(service.jobs) == 1


def test_without_any_credential_of_the_chain_nothing_is_sent(service: OpenAiService, submit: Any) -> None:
    recipe = {**RECIPE, "service": {**SERVICE, "client": "azure-openai"}}
    environment = {**of_azure(service, "azure-openai"), "IDENTITY_ENDPOINT": f"{service.address}/nothing"}
    assert "rejects the credential" in message(submit(recipe, **environment))
    assert service.files == {}
