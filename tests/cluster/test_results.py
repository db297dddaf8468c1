"""The same experiment on a laptop and through SLURM: the same results, with and without a warning before the end."""

import json
import subprocess
from pathlib import Path

import pytest
from experiments import SMALL, small
from loopback import ACCOUNT, Cluster, until
from runs import Runs
from workspace import Workspace

from snaketune.files import read_jsonl, sha256

pytestmark = pytest.mark.long

RUNS = "results/runs/test-phi3/test-areas"
LORA, ZERO3 = f"{RUNS}/lora/seed-1", f"{RUNS}/zero3/seed-1"
# So many steps that one of them can be waited for; no checkpoint but the one that a warning asks for.
EXPERIMENT = {
    **SMALL,
    "techniques": ["lora", "zero3"],
    "precisions": [],
    "training": {"epochs": 12, "batch_rows": 15, "checkpoint_steps": 10000},
}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small(tmp_path_factory.mktemp("laptop"), EXPERIMENT)
    ran = workspace.snakemake("--cores", "2", f"{LORA}/manifest.json", f"{ZERO3}/manifest.json")
    assert ran.returncode == 0, ran.stderr
    return workspace


def on_slurm(path: Path) -> Runs:
    runs = Runs(small(path, EXPERIMENT))
    runs.site("slurm_account: my-account", f"slurm_account: {ACCOUNT}")
    return runs


def metrics(workspace: Workspace, run: str) -> list[dict[str, object]]:
    return read_jsonl(workspace.path / run / "train.jsonl")


def test_results_are_those_of_a_laptop(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    runs = on_slurm(tmp_path)
    code, printed = runs.run(f"{LORA}/manifest.json", f"{ZERO3}/manifest.json")
    assert code == 0, printed
    weights = f"{LORA}/adapter/adapter_model.safetensors"
    assert sha256(tmp_path / weights) == sha256(laptop.path / weights)
    assert metrics(runs.workspace, ZERO3) == metrics(laptop, ZERO3)


def test_a_warned_training_goes_on_where_it_was(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """What SLURM does before a time limit by --signal, `scancel --signal` does now."""
    runs = on_slurm(tmp_path)
    for name in ("corpus", "data", "models", "tokens"):
        subprocess.run(["cp", "-a", "--parents", f"results/{name}", tmp_path], cwd=laptop.path, check=True)
    subprocess.run(["cp", "-a", "--parents", ".snakemake/metadata", tmp_path], cwd=laptop.path, check=True)
    running = runs.start(f"{LORA}/manifest.json")
    log = tmp_path / "logs/train/test-phi3/test-areas/lora/seed-1.log"
    until(lambda: (log.exists() and "step" in log.read_text()) or running.poll() is not None, "the first steps", 900)
    (job,) = [job["id"] for job in cluster.jobs()]
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    state = tmp_path / "work/training/test-phi3/test-areas/lora/seed-1"
    until(lambda: bool(list(state.glob("checkpoint-*/state.json"))), "the checkpoint", 300)
    (saved,) = state.glob("checkpoint-*/state.json")
    assert json.loads(saved.read_text())["step"] > 0
    assert running.wait(timeout=1200) == 0, runs.printed()
    assert runs.printed().count("SLURM status is: 'FAILED'") == 1, runs.printed()
    weights = f"{LORA}/adapter/adapter_model.safetensors"
    assert sha256(tmp_path / weights) == sha256(laptop.path / weights)
