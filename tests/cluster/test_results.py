"""The same experiment on a laptop and through SLURM: the same results, whatever befalls a training."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from configured import URGENT
from loopback import Cluster, output, until
from runs import PROFILE
from support.workspace import Workspace
from trainings import (
    LORA,
    ZERO3,
    about_to_train,
    adapter,
    checkpoints,
    log_of,
    metrics,
    on_slurm,
    quality,
    to_be_cut_off,
    went_on,
)

from snaketune.core.files import sha256

pytestmark = pytest.mark.long


def test_results_are_those_of_a_laptop(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    runs = on_slurm(tmp_path)
    code, printed = runs.run()
    assert code == 0, printed
    for weights in (f"{LORA}/adapter/adapter_model.safetensors", f"{LORA}/onnx/int8/model.onnx"):
        assert sha256(tmp_path / weights) == sha256(laptop.path / weights)
    assert metrics(runs.workspace, ZERO3) == metrics(laptop, ZERO3)
    assert quality(runs.workspace) == quality(laptop)
    # Untuned, lora and zero3: what follows a training is one job, and each precision another.
    logs = tmp_path / "logs/slurm"
    assert [len(list(logs.glob(f"group_{kind}_*/*.log"))) for kind in ("model", "precision")] == [3, 6]
    code, printed = runs.run("--dry-run")
    assert "Nothing to be done" in printed


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
    until(lambda: bool(checkpoints(tmp_path)), "the checkpoint", 300)
    [saved] = checkpoints(tmp_path)
    assert json.loads(saved.read_text())["step"] > 0
    assert running.wait(timeout=1200) == 0, runs.printed()
    assert runs.printed().count("SLURM status is: 'FAILED'") == 1, runs.printed()
    assert adapter(tmp_path) == adapter(laptop.path)


def test_a_preempted_training_goes_on_where_it_was(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    runs = about_to_train(tmp_path, laptop)
    running = runs.start(f"{LORA}/manifest.json")
    until(lambda: "step" in log_of(tmp_path) or running.poll() is not None, "the first steps", 900)
    urgent = ["--partition", URGENT, "--nodes", "2", "--exclusive", "--output", "/dev/null", "--wrap", "sleep 10"]
    subprocess.run(["sbatch", *urgent], check=True)
    assert running.wait(timeout=1200) == 0, runs.printed()
    assert runs.printed().count("SLURM status is") == 1, runs.printed()
    assert "goes on from step" in log_of(tmp_path)
    assert adapter(tmp_path) == adapter(laptop.path)


def test_a_training_goes_on_on_another_node(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """Its node dies without a word: what it did after its last checkpoint is done again."""
    runs = about_to_train(tmp_path, laptop, checkpoint_steps=10)
    running = runs.start(f"{LORA}/manifest.json")
    until(lambda: bool(checkpoints(tmp_path)) or running.poll() is not None, "the first checkpoint", 900)
    [lost] = [job["node"] for job in cluster.jobs()]
    cluster.kill_node(lost)
    try:
        assert running.wait(timeout=1200) == 0, runs.printed()
    finally:
        cluster.start_node(lost)
        until(lambda: cluster.states()[lost] == "idle", f"{lost} to be back")
    assert "goes on from step" in log_of(tmp_path)
    assert adapter(tmp_path) == adapter(laptop.path)


def test_a_time_limit_costs_no_step(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """SLURM itself warns, two to three minutes ahead of its limit of five; steps of three seconds aren't done by then."""
    runs = to_be_cut_off(tmp_path, laptop)
    code, printed = runs.run(f"{LORA}/manifest.json")
    assert code == 0, printed
    went_on(tmp_path, printed, laptop)
