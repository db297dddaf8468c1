"""A cluster that keeps no accounts, and disks that are full."""

import subprocess
from pathlib import Path

from loopback import Cluster, full
from runs import TARGET, Runs


def test_squeue_tells_how_jobs_end_and_a_named_account_is_no_harm(unaccounted: Cluster, runs: Runs) -> None:
    code, printed = runs.run(TARGET)
    assert code == 0, printed
    assert "job states are read from squeue" in printed


def test_a_full_disk_of_the_controller(unaccounted: Cluster, runs: Runs, small_state: Path) -> None:
    with full(small_state):
        code, printed = runs.run(TARGET)
    assert code == 1, printed
    assert printed.count("SLURM accepts no jobs at present") == 1, printed
    assert not runs.started()


def test_a_full_disk_of_the_logs(unaccounted: Cluster, runs: Runs) -> None:
    logs = runs.workspace.path / "logs/slurm"
    logs.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", logs], check=True)
    try:
        code, printed = runs.run(TARGET)
    finally:
        subprocess.run(["umount", "--lazy", logs], check=True)
    assert code == 1, printed
    assert printed.count("storing job logs needs 16 MiB") == 1, printed
    assert not runs.started()
