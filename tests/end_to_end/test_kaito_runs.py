"""From data to a row of the summary with an operator on loopback that answers with a real adapter.

The client is the official one, in its locked environment; the cluster is `kubernetes_service.py`.
"""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from killing import descendants, kill
from support.services.hosting import python_of_publish
from support.services.kubernetes_service import KubernetesService
from support.workspace import REPOSITORY, Workspace

from snaketune.platforms.kaito.manifests import MANIFEST, TRAIN_FILE, tuning_manifests
from snaketune.platforms.kaito.technique import KaitoTechnique

START, END = "2026-11-22T10:00:00Z", "2026-11-22T10:02:00Z"
LAYERS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def technique(volumes: Path) -> dict[str, object]:
    lora = yaml.safe_load((REPOSITORY / "config/techniques/lora.yaml").read_text())
    platform = {
        "type": "kaito",
        "instance_type": "Standard_NC24ads_A100_v4",
        "labels": {"apps": "snaketune"},
        "preset": "phi-3-mini-4k-instruct",
        "data": {"volume": {"volume": {"hostPath": {"path": f"{volumes}/data"}}, "path": f"{volumes}/data"}},
        "output": {
            "volume": {"hostPath": {"path": f"{volumes}/out-{{technique}}-{{seed}}"}},
            "path": f"{volumes}/out-{{technique}}-{{seed}}",
        },
    }
    return {**lora, "platform": platform}


def read_rows(workspace: dict, configs: dict) -> list[dict]:
    """What the trainer of a Workspace finds at its dataset_path, the input volume being /mnt/data."""
    sections = yaml.safe_load(configs[workspace["tuning"]["config"]]["data"]["training_config.yaml"])
    dataset = Path(sections["training_config"]["DatasetConfig"]["dataset_path"]).relative_to("data")
    path = Path(workspace["tuning"]["input"]["volumeSource"]["hostPath"]["path"]) / dataset
    return [json.loads(line) for line in path.read_text().splitlines()]


def place(source: Path, workspace: dict, curve: list[dict]) -> None:
    """Lay an adapter out as the operator's trainer does, at the root of the output volume."""
    out = Path(workspace["tuning"]["output"]["volumeSource"]["hostPath"]["path"])
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copyfile(source / name, out / name)
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/workspace/tfs/weights"
    (out / "adapter_config.json").write_text(json.dumps(config))
    steps = [
        {key: entry[key] for key in ("step", "loss", "learning_rate")} | {"epoch": 1.0, "num_tokens": entry["tokens"]}
        for entry in curve
    ]
    checkpoint = out / f"checkpoint-{len(steps)}"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": [*steps, {"train_runtime": 1.0}]}))
    (out / "fine_tuning_completed.txt").write_text("done\n")


def rows_of(workspace: Workspace) -> list[dict[str, str]]:
    with (workspace.path / "results/summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def killed_when(workspace: Workspace, enough: Callable[[], object]) -> None:
    """Start the workflow and kill it, with all its jobs, at a moment."""
    log = workspace.path / "killed.log"
    running = workspace.started(log, "--cores", "1", "--nolock", "--rerun-incomplete")
    while not enough() and running.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.1)
    assert running.status() != psutil.STATUS_ZOMBIE, log.read_text()[-6000:]
    for victim in descendants(running):
        kill(victim)
    running.wait()


def tune(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The job's own command, on manifests in ``path``."""
    command = [sys.executable, "scripts/make_environment.py", "--lock", "envs/publish/requirements.txt"]
    command += ["--unless", "kubernetes", "--", "scripts/tune_on_kaito.py", "--manifest", f"{path}/{MANIFEST}"]
    command += ["--platform", (path / "platform.json").read_text()]
    command += ["--work", f"{path}/work", "--poll-seconds", "0.1", "--output-directory", f"{path}/tuned", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A folder with the manifests of a run."""
    resolved = KaitoTechnique.model_validate(technique(tmp_path / "volumes"))
    keys = ("adapter", "base_precision", "weight_decay", "warmup_share", "max_grad_norm")
    training = {key: resolved.recipe("phi3")[key] for key in keys}
    recipe = {
        "cell": ["m", "s", "kaito-lora", 1],
        "training": {**training, "epochs": 1, "batch_rows": 16, "learning_rate": 2e-4, "seed": 1},
        "platform": resolved.platform.model_dump(),
        "batches": [16, 1],
        "max_tokens": 512,
    }
    (tmp_path / TRAIN_FILE).write_text('{"messages": []}\n')
    (tmp_path / MANIFEST).write_text(yaml.safe_dump_all(tuning_manifests(recipe, 1, "ab")))
    (tmp_path / "platform.json").write_text(json.dumps({key: recipe[key] for key in ("cell", "platform")}))
    return tmp_path


def at_once(service: KubernetesService, made: dict) -> None:
    """Any bytes: whether they are an adapter is looked at afterwards, where torch is."""
    out = Path(made["tuning"]["output"]["volumeSource"]["hostPath"]["path"])
    for name in ("adapter_model.safetensors", "fine_tuning_completed.txt"):
        (out / name).write_bytes(b"x")
    (out / "adapter_config.json").write_text("{}")
    (out / "checkpoint-1").mkdir()
    (out / "checkpoint-1/trainer_state.json").write_text("{}")
    service.tell(made["metadata"]["name"], "Succeeded")


def failing(service: KubernetesService, made: dict) -> None:
    service.tell(made["metadata"]["name"], "Failed", JobStarted=("False", START, "tuning job failed"))


PASSING = [
    [{"method": "POST", "plural": "configmaps", "status": 429, "headers": {"Retry-After": "0"}}],
    [{"method": "POST", "plural": "workspaces", "status": 503}] * 2,
    [{"method": "POST", "plural": "workspaces", "cut": True}],
    [{"method": "POST", "plural": "configmaps", "cut": True}],
    [{"method": "GET", "plural": "workspaces", "cut": True}, {"method": "GET", "plural": "workspaces", "status": 500}],
    [{"method": "GET", "plural": "workspaces", "status": 401}],
]


@pytest.mark.parametrize("faults", PASSING, ids=["429", "503", "cut workspace", "cut config", "cut wait", "401 once"])
def test_passing_faults_make_one_workspace(asked: Path, faults: list[dict]) -> None:
    service = KubernetesService(at_once)
    service.faults = list(faults)
    config = service.kubeconfig(asked / "kubeconfig")
    for _ in range(2):
        ran = tune(asked, "--confirm", KUBECONFIG=str(config))
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not service.faults
    assert len(service.made) == 1
    assert {path.name for path in (asked / "tuned").iterdir()} >= {"adapter_model.safetensors", "status.json"}
    service.close()


def other_adapter(service: KubernetesService, path: Path) -> None:
    out = path / "volumes/out-kaito-lora-1"
    out.mkdir(parents=True)
    (out / "adapter_model.safetensors").write_text("of another run")


def other_recipe(service: KubernetesService, path: Path) -> None:
    config, _ = yaml.safe_load_all((path / MANIFEST).read_text())
    config["metadata"]["annotations"] = {}
    service.objects["configmaps"][config["metadata"]["name"]] = config


REFUSED = {
    "expired token": (None, lambda service, _: service.tokens.clear(), "log in again"),
    "forbidden": (
        None,
        lambda service, _: service.faults.append(
            {"method": "POST", "plural": "workspaces", "status": 403, "message": "no right"}
        ),
        "no right",
    ),
    "admission": (
        None,
        lambda service, _: setattr(service, "provisions", False),
        "denied the request: invalid value: resource.instanceType",
    ),
    "no operator": (
        None,
        lambda service, _: service.faults.append({"method": "POST", "plural": "workspaces", "status": 404}),
        "no KAITO",
    ),
    "always busy": (
        None,
        lambda service, _: service.faults.extend(
            [{"method": "POST", "plural": "workspaces", "status": 429, "headers": {"Retry-After": "0"}}] * 9
        ),
        "9 times",
    ),
    "failed": (failing, lambda *_: None, "tuning job failed"),
    "another adapter": (at_once, other_adapter, "move it away"),
    "another recipe": (at_once, other_recipe, "was created from other parameters"),
}


@pytest.mark.parametrize(("operator", "prepare", "words"), REFUSED.values(), ids=REFUSED)
def test_other_faults_are_one_message(asked: Path, operator: object, prepare: object, words: str) -> None:
    service = KubernetesService(operator)  # type: ignore[arg-type]
    prepare(service, asked)
    ran = tune(asked, "--confirm", KUBECONFIG=str(service.kubeconfig(asked / "kubeconfig")))
    assert ran.returncode == 1
    assert words in ran.stderr
    assert ran.stderr.count("error: ") == 1
    assert "Traceback" not in ran.stderr
    assert "good" not in ran.stdout + ran.stderr
    assert not (asked / "tuned").exists()
    service.close()


def test_nothing_is_sent_without_leave(asked: Path) -> None:
    service = KubernetesService(at_once)
    ran = tune(asked, KUBECONFIG=str(service.kubeconfig(asked / "kubeconfig")))
    assert ran.returncode == 1
    assert "publish: {confirm: true}" in ran.stderr
    assert service.requests == []
    service.close()


def test_no_cluster(asked: Path) -> None:
    ran = tune(asked, "--confirm", KUBECONFIG=str(asked / "nowhere"))
    assert (ran.returncode, "set KUBECONFIG" in ran.stderr) == (1, True), ran.stderr


# The client in a hurry: what takes a minute in a cluster takes a second here.
LOOK = """
import snaketune.platforms.kaito.cluster_client as calls
from snaketune.platforms import retries
calls.TIMEOUT, calls.LONGEST_PAUSE, retries.TRIES = 1, 0.1, 2
from snaketune.platforms.kaito.workspaces import read
print(read(calls.Cluster("default", None, 0.01), "Workspace", "one"))
"""


def look(config: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(config), "PYTHONPATH": str(REPOSITORY / "scripts")}
    command = [python_of_publish(), "-c", LOOK]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    service = KubernetesService()
    config, port = service.kubeconfig(tmp_path / "kubeconfig"), service.server.server_port
    service.close()
    # It takes connections and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config.write_text(config.read_text().replace(f":{port}", f":{silent.getsockname()[1]}"))
        ran = look(config)
    assert "the API server doesn't answer (ReadTimeoutError), 2 times" in ran.stderr


def test_a_server_that_asks_for_a_day_of_patience_is_asked_again_soon(tmp_path: Path) -> None:
    service = KubernetesService()
    service.faults = [{"method": "GET", "plural": "workspaces", "status": 503, "headers": {"Retry-After": "86400"}}]
    ran = look(service.kubeconfig(tmp_path / "kubeconfig"))
    assert ran.stdout.splitlines()[-1:] == ["None"], ran.stderr
    service.close()
