"""The same experiment on a laptop and through SLURM: the same results, with and without a warning before the end."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from experiments import SMALL, small
from loopback import ACCOUNT, Cluster, output, until
from runs import PROFILE, Runs
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


def test_two_nodes_by_the_profile(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """The lines of profiles/slurm-gpu, without its GPUs."""
    runs = about_to_train(tmp_path, laptop)
    asked = """  train_all_weights:
    nodes: "2 if wildcards.technique == 'zero3' else None"
    tasks: "2 if wildcards.technique == 'zero3' else None"
    mpi: "'srun' if wildcards.technique == 'zero3' else None"
    cpus_per_task: "1 if wildcards.technique == 'zero3' else None"
"""
    runs.workspace.edit(PROFILE, "  train_all_weights:\n", asked)
    code, printed = runs.run(f"{ZERO3}/manifest.json")
    assert code == 0, printed
    assert metrics(runs.workspace, ZERO3) == metrics(laptop, ZERO3)
    [nodes] = {
        line.split("|")[1]
        for line in output("sacct", "-X", "-n", "-P", "-o", "workdir%200,nodelist").splitlines()
        if line.split("|")[0] == str(tmp_path)
    }
    assert nodes == "n[1-2]"


def about_to_train(path: Path, laptop: Workspace) -> Runs:
    """All that a training needs is there."""
    runs = on_slurm(path)
    for name in ("results/corpus", "results/data", "results/models", "results/tokens", ".snakemake/metadata"):
        subprocess.run(["cp", "-a", "--parents", name, path], cwd=laptop.path, check=True)
    return runs


def log_of(path: Path) -> str:
    log = path / "logs/train/test-phi3/test-areas/lora/seed-1.log"
    return log.read_text() if log.exists() else ""


def adapter(path: Path) -> str:
    return sha256(path / LORA / "adapter/adapter_model.safetensors")


@pytest.mark.parametrize("whom", ["every process", "the first process"])
def test_a_warned_training_goes_on_where_it_was(whom: str, cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """What SLURM does ahead of a time limit is done at once; how far a signal goes depends on its ProctrackType."""
    runs = about_to_train(tmp_path, laptop)
    running = runs.start(f"{LORA}/manifest.json")
    until(lambda: "step" in log_of(tmp_path) or running.poll() is not None, "the first steps", 900)
    [job] = [job["id"] for job in cluster.jobs()]
    if whom == "every process":
        subprocess.run(["scancel", "--signal=USR1", job], check=True)
    else:
        os.kill(cluster.task(job), signal.SIGUSR1)
    state = tmp_path / "work/training/test-phi3/test-areas/lora/seed-1"
    until(lambda: bool(list(state.glob("checkpoint-*/state.json"))), "the checkpoint", 300)
    [saved] = state.glob("checkpoint-*/state.json")
    assert json.loads(saved.read_text())["step"] > 0
    assert running.wait(timeout=1200) == 0, runs.printed()
    assert runs.printed().count("SLURM status is: 'FAILED'") == 1, runs.printed()
    assert adapter(tmp_path) == adapter(laptop.path)


def test_a_time_limit_costs_no_step(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """SLURM itself warns, two to three minutes ahead of its limit of five; steps of three seconds aren't done by then."""
    runs = about_to_train(tmp_path, laptop)
    slow = '__import__("time").sleep(3) or'
    runs.workspace.edit("scripts/train.py", "ending=notice()", f"ending=lambda told=notice(): {slow} told()")
    runs.workspace.edit(PROFILE, "  train_adapter:\n", "  train_adapter:\n    runtime: 5*attempt\n")
    code, printed = runs.run(f"{LORA}/manifest.json")
    assert code == 0, printed
    assert printed.count("SLURM status is: 'FAILED'") == 1, printed
    assert "goes on from step" in log_of(tmp_path)
    assert adapter(tmp_path) == adapter(laptop.path)
