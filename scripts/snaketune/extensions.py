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
    directory = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(_default())))
    directory.mkdir(parents=True, exist_ok=True)
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


def _default() -> Path:
    """One folder a machine: a cluster's nodes may differ in what they can run."""
    return Path("work/torch_extensions", platform.node()).absolute()
