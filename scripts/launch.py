"""Start a training script on several ranks, on one node or several.

On one node torchrun's agent runs in this process. On several, SLURM's `srun` starts this program
once on each node of the job, where it was called on the first; without SLURM start it on each
node yourself, with the same --rendezvous. SIGTERM and SIGUSR1 reach every rank, which then
saves a checkpoint and ends.
"""

import argparse
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from snaketune.core import errors


def pass_on(number: int, frame: Any) -> None:
    """Give a signal to the ranks: torchrun itself would count them as failed, even if they then end well."""
    import psutil

    ranks = psutil.Process().children()
    if not ranks:
        raise SystemExit(128 + number)
    for rank in ranks:
        with suppress(psutil.NoSuchProcess):
            rank.send_signal(number)


def run_ranks(nodes: int, ranks: int, rendezvous: str | None, command: list[str]) -> None:
    """Run a script in ``ranks / nodes`` processes here, which meet those of the other nodes at ``rendezvous``.

    Raises:
        SystemExit: a rank failed; it has said why, unless a signal ended it.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    options = ["--nnodes", str(nodes), "--nproc-per-node", str(ranks // nodes), "--max-restarts", "0"]
    options += ["--signals-to-handle", "SIGINT,SIGHUP,SIGQUIT"]
    if rendezvous:
        options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", rendezvous, "--rdzv-id", rendezvous]
    else:
        options += ["--standalone"]
    try:
        run(get_args_parser().parse_args([*options, *command]))
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"error: rank {rank} was ended by {name}" + memory_hint(name), file=sys.stderr)
        raise SystemExit(1) from None


def memory_hint(name: str) -> str:
    return ": perhaps there was too little memory" if name == "SIGKILL" else ""


def step_of_a_job(nodes: int, ranks: int, threads: int, command: list[str]) -> list[str]:
    """The srun command that calls this program on each node of the SLURM job around us.

    Raises:
        UserError: there is no such job.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("srun") is None:
        raise errors.UserError(
            f"{nodes} nodes were asked for, but this is no SLURM job: start this command on each node with --rendezvous HOST:PORT, the first node's name and a free port of it"
        )
    # Two jobs on one node have different ports; below 32768 none is lent to an outgoing connection.
    rendezvous = f"{socket.gethostname()}:{20000 + int(job) % 10000}"
    step = ["srun", "--nodes", str(nodes), "--ntasks", str(nodes), "--ntasks-per-node", "1"]
    step += ["--cpus-per-task", str(ranks // nodes * threads), "--kill-on-bad-exit=1"]
    step += [sys.executable, os.path.relpath(__file__), "--nodes", str(nodes), "--ranks", str(ranks)]
    return [*step, "--rendezvous", rendezvous, *command]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1, help="processes, over all nodes together")
    parser.add_argument("--nodes", type=int, default=1, help="nodes to divide the ranks over")
    parser.add_argument("--threads", type=int, default=1, help="cores of each rank, which srun is asked for")
    parser.add_argument(
        "--rendezvous", metavar="HOST:PORT", help="where the nodes meet: this call is one of several, one on each node"
    )
    parser.add_argument("script", help="the Python script that every rank runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    given = parser.parse_args()
    command = [given.script, *given.arguments]
    if given.ranks % given.nodes:
        raise errors.UserError(
            f"{given.ranks} ranks can't be divided over {given.nodes} nodes: make world_size of the technique a multiple of the resource `nodes`"
        )
    if given.nodes == 1 or given.rendezvous:
        run_ranks(given.nodes, given.ranks, given.rendezvous, command)
    else:
        step = step_of_a_job(given.nodes, given.ranks, given.threads, command)
        os.execvp(step[0], step)


if __name__ == "__main__":
    errors.run(main)
