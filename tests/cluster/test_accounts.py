"""A cluster that keeps no accounts, and disks that are full."""

from pathlib import Path

from loopback import Cluster, full, small_disk
from runs import TARGET, Runs


def test_squeue_tells_how_jobs_end_and_a_named_account_is_no_harm(unaccounted: Cluster, runs: Runs) -> None:
    assert "job states are read from squeue" in runs.run(TARGET)


def test_a_full_disk_of_the_controller(unaccounted: Cluster, runs: Runs, small_state: Path) -> None:
    with full(small_state):
        printed = runs.run(TARGET, code=1)
    assert printed.count("SLURM accepts no jobs at present") == 1, printed
    assert not runs.started()


def test_a_full_disk_of_the_logs(unaccounted: Cluster, runs: Runs) -> None:
    with small_disk(runs.workspace.path / "logs/slurm", "1m"):
        printed = runs.run(TARGET, code=1)
    assert printed.count("storing job logs needs 16 MiB") == 1, printed
    assert not runs.started()
