"""What may befall a Workspace, through the official client in its locked environment: one Workspace, or one message."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.environments import python_of
from support.services.hosting import Ran, Worker, message
from support.services.kubernetes_service import START, KubernetesService, handler_of, refused, technique_on
from support.services.openai_service import Fault, serving
from support.workspace import REPOSITORY

from snaketune.platforms.kaito.manifests import MANIFEST, TRAIN_FILE, tuning_manifests
from snaketune.platforms.kaito.technique import KaitoTechnique


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A folder with the manifests of a run."""
    resolved = KaitoTechnique.model_validate(technique_on(tmp_path / "volumes"))
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


@pytest.fixture
def service() -> Iterator[KubernetesService]:
    made = KubernetesService(at_once)
    with serving(made, handler_of(made)):
        yield made


@pytest.fixture
def tune(service: KubernetesService, worker: Worker, asked: Path) -> Callable[..., Ran]:
    """The job's own command, on the manifests."""
    known = str(service.kubeconfig(asked / "kubeconfig"))

    def call(*confirm: str, config: str = known) -> Ran:
        told = ["--manifest", MANIFEST, "--platform", (asked / "platform.json").read_text(), "--work", "work"]
        told += ["--poll-seconds", "0.01", "--output-directory", "tuned", *confirm]
        return worker("tune_on_kaito.py", *told, directory=asked, KUBECONFIG=config)

    return call


SOON = {"retry_after": "0"}
PASSING = {
    "429": [Fault("POST configmaps", failure=refused(429, **SOON))],
    "503": [Fault("POST workspaces", 2, refused(503))],
    "cut workspace": [Fault("POST workspaces")],
    "cut config": [Fault("POST configmaps")],
    "cut wait": [Fault("GET workspaces"), Fault("GET workspaces", failure=refused(500))],
    "401 once": [Fault("GET workspaces", failure=refused(401))],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_passing_faults_make_one_workspace(
    service: KubernetesService, asked: Path, tune: Any, faults: list[Fault]
) -> None:
    service.faults = faults
    for _ in range(2):
        ran = tune("--confirm")
        assert ran.code == 0, ran.output
    assert not any(fault.times for fault in faults)
    assert len(service.made) == 1
    assert {path.name for path in (asked / "tuned").iterdir()} >= {"adapter_model.safetensors", "status.json"}


def fails(service: KubernetesService, _: Path) -> None:
    def operator(service: KubernetesService, made: dict[str, Any]) -> None:
        service.tell(made["metadata"]["name"], "Failed", JobStarted=("False", START, "tuning job failed"))

    service.operator = operator


def other_adapter(service: KubernetesService, path: Path) -> None:
    out = path / "volumes/out-kaito-lora-1"
    out.mkdir(parents=True)
    (out / "adapter_model.safetensors").write_text("of another run")


def other_recipe(service: KubernetesService, path: Path) -> None:
    config, _ = yaml.safe_load_all((path / MANIFEST).read_text())
    config["metadata"]["annotations"] = {}
    service.objects["configmaps"][config["metadata"]["name"]] = config


def refusing(times: int, code: int, message: str = "no", **headers: str) -> Callable[[KubernetesService, Path], None]:
    return lambda service, _: service.faults.append(Fault("POST workspaces", times, refused(code, message, **headers)))


REFUSED = {
    "expired token": (lambda service, _: service.tokens.clear(), "log in again"),
    "forbidden": (refusing(1, 403, "no right"), "no right"),
    "admission": (
        lambda service, _: setattr(service, "provisions", False),
        "denied the request: invalid value: resource.instanceType",
    ),
    "no operator": (refusing(1, 404), "no KAITO"),
    "always busy": (refusing(9, 429, **SOON), "9 times"),
    "failed": (fails, "tuning job failed"),
    "another adapter": (other_adapter, "move it away"),
    "another recipe": (other_recipe, "was created from other parameters"),
}


@pytest.mark.parametrize(("prepare", "words"), REFUSED.values(), ids=REFUSED)
def test_other_faults_are_one_message(
    service: KubernetesService, asked: Path, tune: Any, prepare: Any, words: str
) -> None:
    prepare(service, asked)
    assert words in message(tune("--confirm"))
    assert not (asked / "tuned").exists()


def test_nothing_is_sent_without_leave(service: KubernetesService, tune: Any) -> None:
    assert "publish: {confirm: true}" in message(tune())
    assert service.requests == []


def test_no_cluster(tune: Any) -> None:
    assert "set KUBECONFIG" in message(tune("--confirm", config="nowhere"))


# The client in a hurry: what takes a minute in a cluster takes a second here.
LOOK = """
import snaketune.platforms.kaito.cluster_client as calls
from snaketune.platforms import retries
calls.TIMEOUT, calls.LONGEST_PAUSE, retries.TRIES = 1, 0.1, 2
from snaketune.platforms.kaito.workspaces import read
print(read(calls.Cluster("default", None, 0.01), "Workspace", "one"))
"""


def look(service: KubernetesService, path: Path) -> subprocess.CompletedProcess[str]:
    config = str(service.kubeconfig(path / "kubeconfig"))
    environment = {**os.environ, "KUBECONFIG": config, "PYTHONPATH": str(REPOSITORY / "scripts")}
    command = [python_of("publish"), "-c", LOOK]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    service = KubernetesService()
    # It takes connections and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service.address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ran = look(service, tmp_path)
    assert "the API server doesn't answer (ReadTimeoutError), 2 times" in ran.stderr


def test_a_server_that_asks_for_a_day_of_patience_is_asked_again_soon(
    service: KubernetesService, tmp_path: Path
) -> None:
    service.faults = [Fault("GET workspaces", failure=refused(503, retry_after="86400"))]
    ran = look(service, tmp_path)
    assert ran.stdout.splitlines()[-1:] == ["None"], ran.stderr
