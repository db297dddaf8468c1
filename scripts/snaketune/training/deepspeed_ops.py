"""DeepSpeed's compiled operations: built once for a machine, even where a build was killed."""

import fcntl
import os
import platform
from pathlib import Path


def load_operations(*builders: str) -> None:
    """Build, the first time on a machine, and load the operations of these DeepSpeed builders.

    torch's own lock file outlives a killed build, and the next one would wait for it for ever.
    Under our lock, which the system frees, such a file can only be a stale one. DeepSpeed keeps
    what is loaded here, so that it comes to no build, and to no lock file, outside of it.
    """
    root = os.environ.get("TORCH_EXTENSIONS_DIR", "work/torch_extensions")
    # A folder of our own, and one a machine: a cluster's nodes may differ in what they can run.
    directory = Path(root, "snaketune", platform.node()).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(directory)
    with (directory / "build.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for stale in directory.glob("*/lock"):
            stale.unlink()
        import deepspeed.ops
        from deepspeed.accelerator import get_accelerator

        for name in builders:
            builder = get_accelerator().create_op_builder(name)
            if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
                builder.load()
