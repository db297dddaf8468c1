"""The same experiment on a laptop and through SLURM: the same results, whatever befalls a training."""

import json
import os
import signal
import subprocess
from pathlib import Path

from configured import URGENT
from loopback import Cluster, output
from runs import PROFILE
from support.workspace import Workspace
from trainings import LORA, ZERO3, about_to_train, adapter, checkpoints, log_of, quality

from snaketune.core.files import read_jsonl, sha256


def test_results_are_those_of_a_laptop_though_the_training_was_preempted(
    cluster: Cluster, laptop: Workspace, tmp_path: Path
) -> None:
    runs = about_to_train(tmp_path, laptop)
    running = runs.start()
    running.until(lambda: "step" in log_of(tmp_path), "the first steps")
    urgent = ["--partition", URGENT, "--nodes", "2", "--exclusive", "--output", "/dev/null", "--wrap", "sleep 5"]
    subprocess.run(["sbatch", *urgent], check=True)
    assert running.wait(timeout=1200) == 0, runs.printed()
    assert "SLURM status is: 'CANCELLED'" in runs.printed() or "SLURM status is: 'FAILED'" in runs.printed()
    assert "resumes from step" in log_of(tmp_path)
    for weights in (f"{LORA}/adapter/adapter_model.safetensors", f"{LORA}/onnx/fp32/model.onnx"):
        assert sha256(tmp_path / weights) == sha256(laptop.path / weights)
    assert quality(runs.workspace) == quality(laptop)
    # What follows a training is one job; exports and their evaluations are jobs of their own.
    assert {path.name.split("_")[1] for path in (tmp_path / "logs/slurm").glob("group_*")} == {"model"}
    assert "Nothing to be done" in runs.workspace.run("--dry-run")


def test_two_nodes_by_the_profile(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """The lines of profiles/slurm-gpu, without its GPUs."""
    runs = about_to_train(tmp_path / "nodes", laptop, "zero3", epochs=2)
    asked = """  train_all_weights:
    nodes: 2
    tasks: 2
    mpi: "'srun'"
    cpus_per_task: 1
"""
    runs.workspace.edit(PROFILE, "  train_all_weights:\n", asked)
    runs.run(f"{ZERO3}/manifest.json")
    nodes = output("sacct", "-X", "-n", "-P", "-o", "workdir%200,nodelist").splitlines()
    assert f"{runs.workspace.path}|n[1-2]" in nodes
    alone = about_to_train(tmp_path / "alone", laptop, "zero3", epochs=2).workspace
    alone.run(f"{ZERO3}/manifest.json")
    curves = [read_jsonl(workspace.path / ZERO3 / "train.jsonl") for workspace in (runs.workspace, alone)]
    assert curves[0] == curves[1]


def test_a_training_of_which_only_the_first_process_is_warned_goes_on(
    cluster: Cluster, laptop: Workspace, tmp_path: Path
) -> None:
    """What SLURM does ahead of a time limit is done at once; how far a signal goes depends on its ProctrackType."""
    runs = about_to_train(tmp_path, laptop)
    running = runs.start(f"{LORA}/manifest.json")
    running.until(lambda: "step" in log_of(tmp_path), "the first steps")
    [job] = [job["id"] for job in cluster.jobs()]
    os.kill(cluster.task(job), signal.SIGUSR1)
    running.until(lambda: checkpoints(tmp_path), "the checkpoint")
    [saved] = checkpoints(tmp_path)
    assert json.loads(saved.read_text())["step"] > 0
    assert running.wait(timeout=1200) == 0, runs.printed()
    assert runs.printed().count("SLURM status is: 'FAILED'") == 1, runs.printed()
    assert adapter(tmp_path) == adapter(laptop.path)


def test_a_training_goes_on_on_another_node(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """Its node dies without a word: what it did after its last checkpoint is done again."""
    runs = about_to_train(tmp_path, laptop, checkpoint_steps=10)
    running = runs.start(f"{LORA}/manifest.json")
    running.until(lambda: checkpoints(tmp_path), "the first checkpoint")
    [lost] = [job["node"] for job in cluster.jobs()]
    cluster.kill_node(lost)
    try:
        assert running.wait(timeout=1200) == 0, runs.printed()
    finally:
        cluster.revive(lost)
    assert "resumes from step" in log_of(tmp_path)
    assert adapter(tmp_path) == adapter(laptop.path)


def test_a_time_limit_costs_no_step(cluster: Cluster, laptop: Workspace, tmp_path: Path) -> None:
    """SLURM itself warns, up to a minute earlier than it is told to; until then each step takes two seconds."""
    runs, slow = about_to_train(tmp_path, laptop), tmp_path / "slow"
    slow.touch()
    wait = '__import__("os").path.exists("slow") and __import__("time").sleep(2)'
    runs.workspace.edit(
        "scripts/train.py", "interrupted=stop_notice()", f"interrupted=lambda stop=stop_notice(): {wait} or stop()"
    )
    own = """  train_adapter:
    runtime: 2*attempt
    slurm_extra: "'--signal=USR1@30'"
"""
    runs.workspace.edit(PROFILE, "  train_adapter:\n    slurm_extra: \"'--signal=USR1@120'\"\n", own)
    running = runs.start(f"{LORA}/manifest.json")
    running.until(lambda: checkpoints(tmp_path), "the checkpoint")
    slow.unlink()
    assert running.wait(timeout=600) == 0, runs.printed()
    assert runs.printed().count("SLURM status is: 'FAILED'") == 1, runs.printed()
    assert "resumes from step" in log_of(tmp_path)
    assert adapter(tmp_path) == adapter(laptop.path)
