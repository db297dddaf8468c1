"""A cluster that keeps no accounts, and disks that are full."""

import subprocess
from pathlib import Path

import pytest
from loopback import Cluster, full
from runs import TARGET, Runs

pytestmark = pytest.mark.long


def test_squeue_tells_how_jobs_end(unaccounted: Cluster, bare: Runs) -> None:
    code, printed = bare.run(TARGET)
    assert code == 0, printed
    assert "squeue is asked how jobs ended" in printed


def test_an_account_is_no_harm_where_none_are_kept(unaccounted: Cluster, runs: Runs) -> None:
    code, printed = runs.run(TARGET)
    assert code == 0, printed


def test_a_full_disk_of_the_controller(unaccounted: Cluster, bare: Runs, small_state: Path) -> None:
    with full(small_state):
        code, printed = bare.run(TARGET)
    assert code == 1, printed
    assert printed.count("SLURM takes no job at present") == 1, printed
    assert not bare.started()


def test_a_full_disk_of_the_logs(unaccounted: Cluster, bare: Runs) -> None:
    logs = bare.workspace.path / "logs/slurm"
    logs.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", logs], check=True)
    try:
        code, printed = bare.run(TARGET)
    finally:
        subprocess.run(["umount", "--lazy", logs], check=True)
    assert code == 1, printed
    assert printed.count("what jobs print needs 16 MiB") == 1, printed
    assert not bare.started()
