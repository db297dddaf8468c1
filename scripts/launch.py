"""Start a training script on several ranks, on one node or several.

On one node torchrun's agent runs in this process. On several, SLURM's `srun` starts this program on
each node of the job; without SLURM, start it on each node yourself with the same --rendezvous.
SIGTERM and SIGUSR1 are forwarded to every rank, which then saves a checkpoint and exits.
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


def forward_signal(number: int, frame: Any) -> None:
    """Forward a signal to the ranks: torchrun itself would report a failure even if they exit cleanly."""
    import psutil

    ranks = psutil.Process().children()
    if not ranks:
        raise SystemExit(128 + number)
    for rank in ranks:
        with suppress(psutil.NoSuchProcess):
            rank.send_signal(number)


def run_ranks(nodes: int, ranks: int, rendezvous: str | None, command: list[str]) -> None:
    """Run a script in ``ranks / nodes`` processes on this node; nodes find each other at ``rendezvous``.

    Raises:
        UserError: a signal killed a rank.
        SystemExit: a rank failed, and printed the reason itself.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, forward_signal)
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
            hint = ": probably out of memory" if name == "SIGKILL" else ""
            raise errors.UserError(f"rank {rank} was killed by {name}{hint}", passing=True) from None
        raise SystemExit(1) from None


def srun_command(nodes: int, ranks: int, threads: int, command: list[str]) -> list[str]:
    """Return the srun command that starts this program on each node of the current SLURM job.

    Raises:
        UserError: this is not a SLURM job.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("srun") is None:
        raise errors.UserError(
            f"--nodes {nodes}, but this is not a SLURM job: start this command on each node with --rendezvous HOST:PORT (the first node's name and a free port on it)"
        )
    # Jobs that share a node get different ports; ports below 32768 are never used for outgoing connections.
    rendezvous = f"{socket.gethostname()}:{20000 + int(job) % 10000}"
    step = ["srun", "--nodes", str(nodes), "--ntasks", str(nodes), "--ntasks-per-node", "1"]
    step += ["--cpus-per-task", str(ranks // nodes * threads), "--kill-on-bad-exit=1"]
    step += [sys.executable, os.path.relpath(__file__), "--nodes", str(nodes), "--ranks", str(ranks)]
    return [*step, "--rendezvous", rendezvous, *command]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1, help="number of processes over all nodes")
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes to spread the ranks over")
    parser.add_argument("--threads", type=int, default=1, help="cores per rank, requested from srun")
    parser.add_argument(
        "--rendezvous",
        metavar="HOST:PORT",
        help="address at which the nodes find each other; this is then one of several calls, one per node",
    )
    parser.add_argument("script", help="the Python script that every rank runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    given = parser.parse_args()
    command = [given.script, *given.arguments]
    if given.ranks % given.nodes:
        raise errors.UserError(
            f"{given.ranks} ranks cannot be spread evenly over {given.nodes} nodes: make the technique's world_size a multiple of the resource `nodes`"
        )
    if given.nodes == 1 or given.rendezvous:
        run_ranks(given.nodes, given.ranks, given.rendezvous, command)
    else:
        step = srun_command(given.nodes, given.ranks, given.threads, command)
        os.execvp(step[0], step)


if __name__ == "__main__":
    errors.run(main)
