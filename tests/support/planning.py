"""The plan that `make plan` prints, read."""

import runpy
import subprocess
import sys
from unittest.mock import patch

from support.workspace import Workspace


def planned(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["tools/plan_resources.py", *arguments, "--configfile", workspace.experiment]

    def call() -> None:
        with patch.object(sys, "argv", command):
            runpy.run_path(command[0], run_name="__main__")

    return workspace.in_fork(call)


def plan(workspace: Workspace, *arguments: str) -> dict[str, list[str]]:
    """The figures of each line of the plan: jobs, cores, GPUs, memory, GPU memory, disk, expected minutes, limit, core-hours, GPU-hours."""
    called = planned(workspace, "--forceall", "--cores", "2", *arguments)
    assert called.returncode == 0, called.stderr
    table = called.stdout.split("\n\n")[0].splitlines()[1:]
    return {" ".join(cells[:-10]): cells[-10:] for cells in map(str.split, table)}
