"""The GPUs of this machine, and who has which: Snakemake counts them, but doesn't say which one is free."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from snaketune.core.errors import UserError

# Set by a Snakemake that runs its jobs on this machine; on a cluster, the cluster hands out GPUs.
GPUS = "SNAKETUNE_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def query(field: str) -> list[str]:
    """Return a field of each GPU as nvidia-smi prints it; nothing where there is none."""
    command = shutil.which("nvidia-smi")
    if not command:
        return []
    asked = [command, f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.splitlines() if found.returncode == 0 else []


def memory_bytes() -> float:
    """Return the memory of the smallest GPU; infinite where there is none, or where it shares the host's ("[N/A]")."""
    return min((float(one) * 2**20 for one in query("memory.total") if one.strip().isdigit()), default=float("inf"))


def gpus() -> list[str]:
    """Return the names of the GPUs that CUDA would show to a process, without importing torch."""
    visible = os.environ.get(GPUS, os.environ.get(VISIBLE))
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return query("index")


def take(count: int, folder: Path | None = None) -> list[TextIO]:
    """Show ``count`` GPUs that no other job has to this process and those it starts; wait until there are so many.

    Returns the locks: the GPUs are taken for as long as one of these files is open.

    Raises:
        UserError: the machine has fewer.
    """
    names = [name for name in os.environ.get(GPUS, "").split(",") if name]
    if count > len(names):
        raise UserError(
            f"this job trains on {count} GPUs, one per rank, but {len(names)} are available: set `ranks:` in the experiment"
        )
    folder = folder or Path(tempfile.gettempdir()) / f"snaketune-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        locks: dict[str, TextIO] = {}
        for name in names:
            file = (folder / f"{name}.lock").open("w")
            if len(locks) < count:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locks[name] = file
                    continue
            file.close()
        if len(locks) == count:
            os.environ[VISIBLE] = ",".join(locks)
            return list(locks.values())
        for taken in locks.values():
            taken.close()
        time.sleep(1 + os.getpid() % 100 / 100)
