"""What goes wrong on a cluster, done to a real one: the run goes on, or one message says what to do."""

import os
import re
import signal
import subprocess
import sys

from loopback import Cluster, output, until
from runs import RULE, TARGET, Runs


def ours(cluster: Cluster) -> list[dict[str, str]]:
    return [job for job in cluster.jobs() if job["name"].startswith("snaketune_")]


def submitted() -> int:
    """How many jobs of runs the cluster has ever seen; the one that is held for a moment isn't named so."""
    names = output("sacct", "-X", "-n", "-o", "jobname%80", "--starttime", "now-1days").split()
    return sum(name.startswith("snaketune_") and name != "snaketune_check" for name in names)


def test_what_slurm_would_refuse_is_said_before_anything_is_submitted(cluster: Cluster, runs: Runs) -> None:
    before = submitted()
    asked = {
        "collect_documentation:slurm_partition='nowhere'": "invalid partition",
        "train_tokenizer:gpu=3": "node configuration is not available",
        "prepare_data:constraint='h100'": "invalid feature",
    }
    target = "results/tokens/test-phi3/test-areas/test/manifest.json"
    printed = runs.run("--set-resources", *asked, "--", target, code=1)
    assert printed.count("SLURM would refuse these jobs, so nothing was submitted") == 1, printed
    for argument, words in asked.items():
        assert re.search(f"^  {argument.split(':')[0]}: .*{words}", printed, re.MULTILINE | re.IGNORECASE), printed
    assert submitted() == before


def test_an_unknown_account_is_said_before_anything_is_submitted(cluster: Cluster, runs: Runs) -> None:
    before = submitted()
    printed = runs.run("--set-resources", f"{RULE}:slurm_account='nobody'", "--", TARGET, code=1)
    assert printed.count("slurm_account: ") == 1, printed
    assert "nobody appears to be invalid" in printed, printed
    assert submitted() == before


def test_a_job_gets_the_gpus_it_asks_for(cluster: Cluster, runs: Runs) -> None:
    runs.run("--set-resources", f"{RULE}:gpu=1", "--", TARGET)
    assert [(one["node"], one["gpus"]) for one in runs.started()] == [("n2", "0")]


def test_a_directory_that_nodes_do_not_see(cluster: Cluster, runs: Runs) -> None:
    """Mounted here alone, the nodes see an empty folder in its place."""
    before, place = submitted(), runs.workspace.path
    copy = f'cp -a "{place}" "{place}.copy" && mount -t tmpfs none "{place}" && cp -a "{place}.copy/." "{place}"'
    inside = f'{copy} && cd "{place}" && exec "$@"'
    words = [sys.executable, "-m", "snakemake", "--configfile", runs.workspace.experiment]
    command = ["unshare", "--mount", "sh", "-c", inside, "sh", *words, "--profile", "profiles/slurm", TARGET]
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert (ran.stdout + ran.stderr).count(f"a node can't see {place}: work in a directory that all nodes share") == 1
    assert submitted() == before


def test_no_client(cluster: Cluster, runs: Runs) -> None:
    programs = runs.workspace.path / "programs"
    programs.mkdir()
    for name in ("sh", "bash", "which"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    printed = runs.run(TARGET, code=1, PATH=str(programs))
    assert printed.count("sbatch isn't installed here: run on a login node") == 1


def test_too_little_memory_is_tried_again_with_more(cluster: Cluster, runs: Runs) -> None:
    printed = runs.run("--set-resources", f"{RULE}:mem_mb=100*10**(attempt-1)", "--", TARGET)
    assert printed.count("SLURM status is") == 1, printed


def test_a_dead_node_is_left_for_another(cluster: Cluster, runs: Runs) -> None:
    running = runs.held()
    lost = runs.started()[0]["node"]
    cluster.kill_node(lost)
    runs.release()
    try:
        assert running.wait(timeout=1200) == 0, runs.printed()
    finally:
        cluster.revive(lost)
    assert [one["node"] != lost for one in runs.started()] == [False, True], runs.printed()


def test_a_node_with_a_full_disk_is_left_for_another(cluster: Cluster, runs: Runs, full_spool: str) -> None:
    printed = runs.run(TARGET)
    assert [one["node"] != full_spool for one in runs.started()] == [True], printed


def test_a_cancelled_job_is_tried_again_as_often_as_the_profile_says(cluster: Cluster, runs: Runs) -> None:
    running = runs.held("--retries", "1")
    for attempt in (1, 2):
        running.until(lambda: len(runs.started()) == attempt, "the job to start")  # noqa: B023
        job = runs.started()[-1]["job"]
        subprocess.run(["scancel", job], check=True)
    assert running.wait(timeout=1200) == 1, runs.printed()
    assert len(runs.started()) == 2
    assert f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED" in runs.printed()
    assert not (runs.workspace.path / TARGET).exists()


def test_ctrl_c_cancels_every_job_and_leaves_no_lock(cluster: Cluster, runs: Runs) -> None:
    # While Snakemake asks for the states of its jobs, it has none to cancel: the next run does.
    running = runs.held(FIRST_QUESTION="30")
    os.kill(running.pid or 0, signal.SIGINT)
    assert running.wait(timeout=600) not in (0, None)
    until(lambda: not ours(cluster), "the jobs to end")
    until(lambda: not cluster.processes(), "what they started to end")
    assert not list((runs.workspace.path / ".snakemake").glob("locks/*"))
    assert not (runs.workspace.path / TARGET).exists()


def test_what_a_killed_run_left_is_cancelled_before_the_next_submits(cluster: Cluster, runs: Runs) -> None:
    running = runs.held()
    orphan = runs.started()[0]["job"]
    running.kill()
    running.wait()
    assert "--unlock" in runs.run(TARGET, code=1)
    assert [job["id"] for job in ours(cluster)] == [orphan]
    runs.run("--unlock")
    again = runs.start(TARGET)
    again.until(lambda: len(runs.started()) == 2, "the next job to start")
    assert f"Cancelling 1 jobs left here by a killed run: {orphan}" in runs.printed(), runs.printed()
    assert [job["id"] for job in ours(cluster)] == [runs.started()[1]["job"]]
    runs.release()
    assert again.wait(timeout=600) == 0, runs.printed()
    ended, begun = (
        output("sacct", "-X", "-n", "-j", one["job"], "-o", what).strip()
        for one, what in zip(runs.started(), ("end", "start"), strict=True)
    )
    assert ended <= begun


def test_a_second_run_beside_is_refused(cluster: Cluster, runs: Runs) -> None:
    first = runs.held()
    assert "Directory cannot be locked" in runs.run(TARGET, code=1)
    assert f"another snakemake submits jobs from {runs.workspace.path}" in runs.run("--nolock", TARGET, code=1)
    runs.release()
    assert first.wait(timeout=600) == 0
    assert len(runs.started()) == 1
