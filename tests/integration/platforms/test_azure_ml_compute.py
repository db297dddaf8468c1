"""A command job of Azure Machine Learning: checked before it is sent, sent once, and its results fetched."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.services.azure_service import HOSTS, AzureService, azure_serving
from support.services.hosting import Ran, Worker, message

from snaketune.core.errors import UserError
from snaketune.platforms import azure_ml_job

ROOT = Path(__file__).resolve().parents[3]
JOB = {
    "compute": "gpu-cluster",
    "instance_type": "STANDARD_NC6S_V3",
    "environment": {"image": "registry/snaketune:1"},
    "results": "azureml://datastores/workspaceblobstore/paths/snaketune",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with results that git ignores."""
    root = tmp_path / "checkout"
    content = {
        "Snakefile": "rule all:\n",
        "Dockerfile": "FROM python:3.11\n",
        "config/experiments/mine.yaml": "seeds: [1]\n",
        ".gitignore": "/results/\n.env\n",
        "results/large.onnx": "weights",
        ".env": "TOKEN=hidden",
    }
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def job_file(root: Path, **changed: Any) -> Path:
    path = root / "config/job.yaml"
    content = {key: value for key, value in {**JOB, **changed}.items() if value is not None}
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_job_of_the_repository_is_one() -> None:
    job = azure_ml_job.read(ROOT / "profiles/azure-ml/job.yaml", ROOT)
    assert job.environment.build == "Dockerfile"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"compute": None}, "compute: missing"),
        ({"comput": "x"}, "comput: unknown key; did you mean compute"),
        ({"instance_count": 2}, "one Snakemake runs"),
        ({"process_count_per_instance": 4}, "starts a technique's world_size ranks"),
        ({"environment": {}}, "exactly one of build, image"),
        ({"environment": {"image": "registry:5000/snaketune"}}, "tag or digest"),
        ({"environment": {"build": "Containerfile"}}, "Containerfile: no such file"),
        ({"experiment": "config/experiments/yours.yaml"}, "yours.yaml: no such file"),
        ({"results": "results"}, "results: String should match"),
        ({"data": "azureml://datastores/a/paths/x; rm -rf /"}, "data: String should match"),
        ({"targets": ["--forceall"]}, "found an option"),
        ({"hours": 0, "shared_memory": "much"}, "shared_memory"),
    ],
)
def test_a_job_that_couldnt_run_is_one_message(changed: dict[str, Any], told: str, checkout: Path) -> None:
    path = job_file(checkout, **changed)
    with pytest.raises(UserError) as raised:
        azure_ml_job.read(path, checkout)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_what_git_ignores_isnt_uploaded_and_a_secret_stops_it(checkout: Path) -> None:
    names = azure_ml_job.checkout(checkout)
    assert names == [".gitignore", "Dockerfile", "Snakefile", "config/experiments/mine.yaml"]
    made = azure_ml_job.snapshot(checkout, names, checkout.parent / "code")
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()) == names
    (checkout / "config/server.key").write_text("secret")
    with pytest.raises(UserError, match=r"config/server\.key: looks like a secret"):
        azure_ml_job.checkout(checkout)
    with pytest.raises(UserError, match="not a git checkout"):
        azure_ml_job.checkout(checkout.parent)


def test_the_name_follows_from_the_job_and_every_byte_of_the_checkout(checkout: Path) -> None:
    def key(**changed: Any) -> str:
        job = azure_ml_job.read(job_file(checkout, **changed), checkout)
        names = [name for name in azure_ml_job.checkout(checkout) if name != "config/job.yaml"]
        return azure_ml_job.key_of(job, checkout, names)

    first = key()
    assert key() == first
    assert len({first, key(attempt=2), key(targets=["package"]), key(hours=1)}) == 4
    (checkout / "Snakefile").write_text("rule none:\n")
    assert key() != first


@pytest.mark.parametrize("status", [0, 3])
def test_the_command_takes_the_results_out_and_keeps_snakemakes_status(checkout: Path, status: int) -> None:
    """The command itself, in a shell, with a Snakemake that says how it was called."""
    job = azure_ml_job.read(job_file(checkout, targets=["a b"], data=JOB["results"]), checkout)
    folders = {name: checkout.parent / name for name in ("data", "out", "bin")}
    for folder in folders.values():
        folder.mkdir()
    (folders["data"] / "rows.jsonl").write_text("{}")
    snakemake = folders["bin"] / "snakemake"
    snakemake.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > results/called; cp data/rows.jsonl results/; exit {status}\n')
    snakemake.chmod(0o755)
    command = azure_ml_job.command_of(job)
    command = command.replace("${{inputs.data}}", str(folders["data"])).replace(
        "${{outputs.results}}", str(folders["out"])
    )
    path = {**os.environ, "PATH": f"{folders['bin']}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", command], cwd=checkout, env=path, capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran.stderr
    assert (folders["out"] / "results/called").read_text() == "--cores|all|--|a b|"
    assert (folders["out"] / "results/rows.jsonl").is_file()


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureService]:
    results = {"results/summary.csv": b"model,value\n", "results/runs/a/manifest.json": b"{}"}
    with azure_serving(tmp_path, results=results) as service:
        yield service
    assert service.hosts <= set(HOSTS)


@pytest.fixture
def submit(worker: Worker, azure: AzureService, checkout: Path) -> Any:
    def call(path: Path, *arguments: object) -> Ran:
        environment = {**azure.environment(), "HOME": str(checkout.parent)}
        script = ROOT / "tools/submit_azure_ml.py"
        return worker(script, path, "--poll-seconds", 0.01, *arguments, directory=checkout, **environment)

    return call


def test_a_job_is_sent_once_watched_and_its_results_fetched(submit: Any, azure: AzureService, checkout: Path) -> None:
    path = job_file(checkout, experiment="config/experiments/mine.yaml", data=JOB["results"])
    shown = submit(path, "--dry-run")
    assert shown.code == 0, shown.output
    assert "hidden" not in shown.output
    assert "# Snakefile" in shown.output
    document = yaml.safe_load(shown.output)
    assert "nothing was sent" in message(submit(path))
    assert azure.requests == []

    fetched = checkout.parent / "fetched"
    sent = submit(path, "--confirm", "--wait", "--fetch", fetched)
    assert sent.code == 0, sent.output
    [[key, job]] = azure.jobs.items()
    assert document["name"] == key
    told = job["properties"]
    assert (told["jobType"], told["command"]) == ("Command", document["command"])
    assert told["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 1}
    assert told["computeId"].endswith("/computes/gpu-cluster")
    assert told["outputs"]["results"]["uri"] == f"{JOB['results']}/{key}"
    assert told["limits"]["timeout"] == "P1D"
    uploaded = {name.rsplit("/", 1)[-1] for name in azure.blobs if name.startswith("/code-")}
    assert {"Snakefile", "mine.yaml"} <= uploaded
    assert not {".env", "large.onnx"} & uploaded
    assert re.findall(rf"^{key}: (\w+)$", sent.output, re.MULTILINE) == azure.states
    assert {name: (fetched / name).read_bytes() for name in azure.results} == azure.results
    assert len([path for path in fetched.rglob("*") if path.is_file()]) == len(azure.results)
    assert "planted" not in sent.output

    again = submit(path, "--confirm")
    assert (again.code, len(azure.jobs)) == (0, 1)
    assert "has this job already (Completed)" in again.output


def test_what_the_workspace_cant_run_is_one_message_and_nothing_is_sent(
    submit: Any, azure: AzureService, checkout: Path
) -> None:
    for changed, told in (
        ({"compute": "other"}, "has no other; nothing was sent"),
        ({"instance_type": "Standard_D2_v3"}, "has Standard_NC6s_v3 machines, not Standard_D2_v3"),
    ):
        assert told in message(submit(job_file(checkout, **changed), "--confirm"))
    assert azure.jobs == azure.blobs == {}


def test_a_job_that_fails_says_so_and_its_results_come_too(submit: Any, azure: AzureService, checkout: Path) -> None:
    azure.states = ["Failed"]
    path = job_file(checkout)
    assert "ended as Failed" in message(submit(path, "--confirm", "--wait"))
    assert "is empty" in message(submit(path, "--fetch", checkout.parent / "fetched"))
