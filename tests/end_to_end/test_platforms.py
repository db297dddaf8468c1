"""One experiment trained here, by both kinds of hosted service and by KAITO, all on loopback: a row of the summary each."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.experiments import SMALL, small
from support.services.azure_service import HOSTS, AzureService, handler_of
from support.services.certificates import certificate
from support.services.hosting import SECRET, python_of_publish
from support.services.kubernetes_service import KubernetesService
from support.services.openai_service import OpenAiService, serving
from support.workspace import REPOSITORY, Workspace
from test_hosted import holders
from test_kaito_runs import END, START, killed_when, place, read_rows, rows_of, technique

from snaketune.core.files import read_json, read_jsonl, read_yaml

pytestmark = pytest.mark.long

OPENAI, AZURE = "hosted-openai-compatible", "hosted-azure-ml"
EXPERIMENT = {
    **SMALL,
    **read_yaml(REPOSITORY / "config/experiments/hosted.yaml"),
    "models": ["test-phi3"],
    "scenarios": ["test-areas"],
    "techniques": ["lora", OPENAI, AZURE, "kaito-lora"],
    "parity": {},
    "publish": {"confirm": True, "poll_seconds": 0.5},
}


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureService]:
    # Before there is a proxy, which only knows the services here.
    python_of_publish()
    trusted, context = certificate(tmp_path, HOSTS)
    made = AzureService(context)
    with serving(made, handler_of(made)) as found:
        for name, value in found.environment(trusted).items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = small(tmp_path / "copy", EXPERIMENT)
    made.write("config/techniques/kaito-lora.yaml", technique(tmp_path / "volumes"))
    made.edit(f"config/techniques/{OPENAI}.yaml", "gpt-4.1-mini-2025-04-14", "gpt-test")
    return made


@pytest.fixture
def kaito(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesService]:
    def operator(service: KubernetesService, made: dict[str, Any]) -> None:
        """With the adapter that is trained here, as soon as it is."""
        seen.append(len(read_rows(made, service.objects["configmaps"])))
        name = made["metadata"]["name"]
        service.tell(name, "Running", JobStarted=("True", START, ""), WorkspaceSucceeded=("False", START, "training"))
        local = workspace.path / "results/runs/test-phi3/test-areas/lora/seed-1"
        while not (local / "manifest.json").exists():
            time.sleep(0.2)
        place(local / "adapter", made, [json.loads(line) for line in (local / "train.jsonl").read_text().splitlines()])
        times = {"JobStarted": ("True", START, ""), "WorkspaceSucceeded": ("True", END, "")}
        service.tell(name, "Succeeded", **times)

    seen: list[int] = []
    service = KubernetesService(operator)
    # The answer to the first Workspace is lost, and the next question finds nobody.
    service.faults = [
        {"method": "POST", "plural": "workspaces", "cut": True},
        {"method": "GET", "plural": "workspaces", "status": 503},
    ]
    monkeypatch.setenv("KUBECONFIG", str(service.kubeconfig(tmp_path / "kubeconfig")))
    yield service
    service.close()
    assert seen == [sum(1 for _ in (workspace.path / "results/data/test-areas/train.jsonl").open())]


def finish(workspace: Workspace) -> dict[str, dict[str, str]]:
    ran = workspace.forked("--cores", "2", "--nolock", "--rerun-incomplete")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    return {row["technique"]: row for row in rows_of(workspace) if row["technique"] != "base"}


def test_every_platform_ends_in_a_row_of_one_summary(
    workspace: Workspace, openai_service: OpenAiService, azure: AzureService, kaito: KubernetesService
) -> None:
    for enough in (lambda: openai_service.jobs, lambda: azure.jobs, lambda: kaito.made):
        killed_when(workspace, enough)
    rows = finish(workspace)
    assert [len(openai_service.jobs), len(azure.jobs), len(kaito.made)] == [1, 1, 1]
    # What Azure ML trained is deployed by its owner, and then asked.
    assert {*rows} >= {"lora", OPENAI, "kaito-lora"}
    model = read_json(workspace.path / f"results/runs/Phi-4-mini-instruct/test-areas/{AZURE}/seed-1/model.json")
    azure.endpoints["tuned"] = f"azureml://locations/x/models/{model['model']}/versions/1"
    workspace.edit(f"config/techniques/{AZURE}.yaml", "  # endpoint: my-tuned-phi", "  endpoint: tuned")
    with serving(OpenAiService({"planted-key-of-tuned"}, models=["tuned"])) as answering:
        azure.answers_at = answering.address
        rows = finish(workspace)
    assert {*rows} == {"lora", OPENAI, AZURE, "kaito-lora"}
    assert [len(openai_service.jobs), len(azure.jobs), len(kaito.made)] == [1, 1, 1]
    for row in rows.values():
        assert (row["metric"], row["n"]) == ("accuracy", "32")
        assert 0 <= float(row["value"]) <= 1
    tuned, local = rows["kaito-lora"], rows["lora"]
    for figure in ("value", "trainable_parameters", "total_parameters"):
        assert tuned[figure] == local[figure]
    assert (tuned["train_seconds"], tuned["peak_memory_bytes"]) == ("120.0", "")
    losses = [
        read_jsonl(workspace.path / f"results/runs/test-phi3/test-areas/{name}/seed-1/train.jsonl")[-1]
        for name in ("lora", "kaito-lora")
    ]
    assert losses[0]["validation_loss"] == pytest.approx(losses[1]["validation_loss"], rel=1e-5)
    assert "kaito-lora" in (workspace.path / "results/report.html").read_text()
    again = workspace.forked("--cores", "1", "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr
    verified = workspace.script("verify.py")
    assert verified.returncode == 0, verified.stderr
    for secret in (SECRET, *(f"planted-{kind}" for kind in ("header", "key", "signature", "token"))):
        assert [path for path in holders(workspace.path, secret) if not path.startswith("tests/")] == []
