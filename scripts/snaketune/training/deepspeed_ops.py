"""Build DeepSpeed's compiled operations once per machine, even after a killed build."""

import os
import platform
import sys
from pathlib import Path

from snaketune.core.files import lock, prefer_programs_of


def load_operations(*builders: str) -> None:
    """Load the operations of these DeepSpeed builders, building them on first use.

    torch's lock file survives a killed build, and the next build would wait for it forever. Under
    our own lock, which the kernel releases, any such file is stale and can be removed. DeepSpeed
    caches what is loaded here, so it never builds outside of the lock.
    """
    root = os.environ.get("TORCH_EXTENSIONS_DIR", "work/torch_extensions")
    # One directory per machine: the nodes of a cluster may have different instruction sets.
    directory = Path(root, "snaketune", platform.node()).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(directory)
    # Another version of ninja on the PATH would build all again: two minutes of processor time.
    prefer_programs_of(Path(sys.executable).parent)
    with (directory / "build.lock").open("w") as guard:
        lock(guard)
        for stale in directory.glob("*/lock"):
            stale.unlink()
        import deepspeed.ops
        from deepspeed.accelerator import get_accelerator

        for name in builders:
            builder = get_accelerator().create_op_builder(name)
            if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
                builder.load()
