"""The plan that `make plan` prints, read."""

from support.workspace import Workspace


def plan(workspace: Workspace, *arguments: str) -> dict[str, list[str]]:
    """The figures of each line of the plan: jobs, cores, GPUs, memory, minutes, core-hours, GPU-hours."""
    called = workspace.script(
        "plan_resources.py", "--forceall", "--cores", "2", *arguments, "--configfile", workspace.experiment
    )
    assert called.returncode == 0, called.stderr
    table = called.stdout.split("\n\n")[0].splitlines()[1:]
    return {" ".join(cells[:-7]): cells[-7:] for cells in map(str.split, table)}
