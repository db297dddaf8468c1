"""One experiment trained here, by both kinds of hosted service and by KAITO, all on loopback: a row of the summary each.

Each is killed on the way; in the end there is one job of each, and no secret is left.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from killing import descendants, kill
from support.environments import python_of
from support.experiments import RUNS, SMALL, run_of
from support.services.azure_service import AzureService, azure_serving
from support.services.hosting import SECRET
from support.services.kubernetes_service import START, KubernetesService, refused, technique_on
from support.services.kubernetes_service import handler_of as kubernetes
from support.services.openai_service import Failure, Fault, OpenAiService, serving
from support.workspace import REPOSITORY, Workspace

from snaketune.core.files import read_json, read_jsonl, read_yaml, write_json

pytestmark = pytest.mark.long

OPENAI, AZURE = "hosted-openai-compatible", "hosted-azure-ml"
OPENAI_RUN = f"results/runs/gpt-test/test-areas/{OPENAI}/seed-1"
AZURE_RUN = f"results/runs/Phi-4-mini-instruct/test-areas/{AZURE}/seed-1"
EXPERIMENT = {
    **SMALL,
    **read_yaml(REPOSITORY / "config/experiments/hosted.yaml"),
    "models": ["test-phi3"],
    "scenarios": ["test-areas"],
    "techniques": ["lora", OPENAI, AZURE, "kaito-lora"],
    "parity": {},
    "publish": {"confirm": True, "poll_seconds": 0.1},
}


@pytest.fixture
def openai_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAiService]:
    with serving(OpenAiService({SECRET})) as found:
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{found.address}/v1")
        yield found


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureService]:
    # Before there is a proxy, which only knows the services here.
    python_of("publish")
    with azure_serving(tmp_path) as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def workspace(copy: Workspace, tmp_path: Path) -> Workspace:
    copy.write(copy.experiment, EXPERIMENT)
    copy.write("config/techniques/kaito-lora.yaml", technique_on(tmp_path / "volumes"))
    copy.edit(f"config/techniques/{OPENAI}.yaml", "gpt-4.1-mini-2025-04-14", "gpt-test")
    return copy


def volume(mount: dict[str, Any]) -> Path:
    return Path(mount["volume" if "volume" in mount else "volumeSource"]["hostPath"]["path"])


def rows_given(made: dict[str, Any], configs: dict[str, Any]) -> list[dict[str, Any]]:
    """What the trainer of a Workspace finds at its dataset_path, the input volume being /mnt/data."""
    sections = yaml.safe_load(configs[made["tuning"]["config"]]["data"]["training_config.yaml"])
    dataset = Path(sections["training_config"]["DatasetConfig"]["dataset_path"]).relative_to("data")
    return read_jsonl(volume(made["tuning"]["input"]) / dataset)


def place(run: Path, out: Path) -> None:
    """Lay a run's adapter out as the operator's trainer does, at the root of the output volume."""
    shutil.copyfile(run / "adapter/adapter_model.safetensors", out / "adapter_model.safetensors")
    config = read_json(run / "adapter/adapter_config.json")
    write_json(out / "adapter_config.json", {**config, "base_model_name_or_path": "/workspace/tfs/weights"})
    steps = [
        {key: entry[key] for key in ("step", "loss", "learning_rate")} | {"epoch": 1.0, "num_tokens": entry["tokens"]}
        for entry in read_jsonl(run / "train.jsonl")
    ]
    write_json(out / f"checkpoint-{len(steps)}/trainer_state.json", {"log_history": [*steps, {"train_runtime": 1.0}]})
    (out / "fine_tuning_completed.txt").write_text("done\n")


@pytest.fixture
def kaito(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesService]:
    def operator(service: KubernetesService, made: dict[str, Any]) -> None:
        """With the adapter that was trained here."""
        seen.append(len(rows_given(made, service.objects["configmaps"])))
        name = made["metadata"]["name"]
        service.tell(name, "Running", JobStarted=("True", START, ""), WorkspaceSucceeded=("False", START, "training"))
        place(run_of(workspace), volume(made["tuning"]["output"]))
        ended = START.replace("10:00:00", "10:02:00")
        service.tell(name, "Succeeded", JobStarted=("True", START, ""), WorkspaceSucceeded=("True", ended, ""))

    seen: list[int] = []
    service = KubernetesService(operator)
    # The answer to the first Workspace is lost, and the next question finds nobody.
    service.faults = [Fault("POST workspaces"), Fault("GET workspaces", failure=refused(503))]
    with serving(service, kubernetes(service)):
        monkeypatch.setenv("KUBECONFIG", str(service.kubeconfig(tmp_path / "kubeconfig")))
        yield service
    assert seen == [len(read_jsonl(workspace.path / "results/data/test-areas/train.jsonl"))]


def killed_at(workspace: Workspace, service: Any, route: str, times: int, target: str) -> None:
    """Snakemake and all below it die as the service has just done what ``route`` asked, for the nth time."""
    running: list[psutil.Process] = []
    left = [times]

    def watch(seen: str) -> None:
        left[0] -= bool(re.fullmatch(route, seen))
        if left[0] == 0:
            for victim in descendants(running[0]):
                kill(victim)

    service.watch = watch
    log = workspace.path / "killed.log"
    running.append(workspace.started(log, "--cores", "2", target))
    code = running[0].wait()
    service.watch = None
    assert code < 0, log.read_text()[-4000:]
    workspace.forked("--unlock")


def holders(root: Path, text: str) -> list[str]:
    """Files below a folder that hold a text; the copy holds these tests too, which name it."""
    paths = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    found = [path.relative_to(root) for path in paths if text in path.name or text.encode() in path.read_bytes()]
    return [str(path) for path in found if path.parts[0] != "tests"]


def finish(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The rows of the tuned models, by technique."""
    workspace.run("--rerun-incomplete")
    return {row["technique"]: row for row in workspace.summary() if row["technique"] != "base"}


def test_every_platform_ends_in_a_row_of_one_summary(
    workspace: Workspace, openai_service: OpenAiService, azure: AzureService, kaito: KubernetesService
) -> None:
    for service, route, times, target in (
        (openai_service, "POST /files", 1, f"{OPENAI_RUN}/job.json"),
        (openai_service, "POST /fine_tuning/jobs", 1, f"{OPENAI_RUN}/job.json"),
        (openai_service, "GET /fine_tuning/jobs/ftjob-0000", 2, f"{OPENAI_RUN}/finished.json"),
        (openai_service, "POST /chat/completions", 7, f"{OPENAI_RUN}/evaluation/hosted.json"),
        (azure, "PUT /jobs/.*", 1, f"{AZURE_RUN}/job.json"),
        (kaito, "POST workspaces", 1, f"{RUNS}/kaito-lora/seed-1/manifest.json"),
    ):
        killed_at(workspace, service, route, times, target)
    openai_service.faults += [Fault(".*", 3, Failure(429, "slow down", retry_after_ms="1"))]
    # What Azure ML trained is deployed by its owner, and then asked.
    assert finish(workspace).keys() >= {"lora", OPENAI, "kaito-lora"}
    model = read_json(workspace.path / AZURE_RUN / "model.json")
    azure.endpoints["tuned"] = f"azureml://locations/x/models/{model['model']}/versions/1"
    workspace.edit(f"config/techniques/{AZURE}.yaml", "  # endpoint: my-tuned-phi", "  endpoint: tuned")
    with serving(OpenAiService({"planted-key-of-tuned"}, models=["tuned"])) as answering:
        azure.answers_at = answering.address
        rows = finish(workspace)
    assert rows.keys() == {"lora", OPENAI, AZURE, "kaito-lora"}
    assert [len(openai_service.jobs), len(azure.jobs), len(kaito.made)] == [1, 1, 1]
    for row in rows.values():
        assert (row["metric"], row["n"]) == ("accuracy", "32")
        assert 0 <= float(row["value"]) <= 1

    tuned, local = rows["kaito-lora"], rows["lora"]
    for figure in ("value", "trainable_parameters", "total_parameters"):
        assert tuned[figure] == local[figure]
    assert (tuned["train_seconds"], tuned["peak_memory_bytes"]) == ("120.0", "")
    losses = [read_jsonl(run_of(workspace, name) / "train.jsonl")[-1] for name in ("lora", "kaito-lora")]
    assert losses[0]["validation_loss"] == pytest.approx(losses[1]["validation_loss"], rel=1e-5)

    [base] = [row for row in workspace.summary() if (row["model"], row["technique"]) == ("gpt-test", "base")]
    tuned = rows[OPENAI]
    answers = read_jsonl(workspace.path / OPENAI_RUN / "evaluation/hosted.predictions.jsonl")
    assert float(tuned["value"]) == pytest.approx(sum(row["statistics"]["accuracy"][0] for row in answers) / 32)
    assert (base["backend"], float(base["value"])) == ("hosted", 0)
    assert float(tuned["delta"]) == float(tuned["value"]) > 0
    assert int(tuned["train_tokens"]) == openai_service.jobs["ftjob-0000"]["trained_tokens"]
    empty = ("peak_memory_bytes", "trainable_parameters", "latency_p50_ms", "tokens_per_second", "artifact_bytes")
    assert [tuned[name] for name in empty] == [""] * len(empty)

    assert "kaito-lora" in (workspace.path / "results/report.html").read_text()
    assert "Nothing to be done" in workspace.run("--dry-run")
    workspace.told("verify.py")
    for secret in (SECRET, *(f"planted-{kind}" for kind in ("header", "key", "signature", "token"))):
        assert holders(workspace.path, secret) == []

    # What was paid for isn't paid for again, though its record is lost and its script has changed.
    asked = openai_service.count("POST /chat/completions")
    (workspace.path / OPENAI_RUN / "job.json").unlink()
    workspace.edit("scripts/submit_hosted.py", "indent=1", "indent=2")
    workspace.run(f"{OPENAI_RUN}/evaluation/hosted.json")
    assert len(openai_service.jobs) == 1
    assert openai_service.count("POST /chat/completions") == asked


def test_without_leave_nothing_leaves_the_machine(workspace: Workspace, openai_service: OpenAiService) -> None:
    workspace.write(workspace.experiment, {**EXPERIMENT, "techniques": ["lora", OPENAI], "publish": {"confirm": False}})
    workspace.run("plan_hosted")
    plan = read_json(workspace.path / OPENAI_RUN / "plan.json")
    assert plan["sent"]["train"]["rows"] == 120
    assert plan["estimated_cost"] is None
    ran = workspace.forked("--cores", "2")
    assert ran.returncode != 0
    assert "nothing was sent" in ran.stdout + ran.stderr
    assert openai_service.requests == []
