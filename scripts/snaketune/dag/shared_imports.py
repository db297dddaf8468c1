"""Let the jobs of a local run share their imports: each is a fork of a process that has imported the libraries."""

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from snakemake import benchmark

from snaketune.core import fork_client, gpus
from snaketune.core.files import prefer_programs_of

# Whether a script is worth starting a server for; others use one that runs. Trainings and speed measurements are left out:
# their memory and time are results, and a fork has less of its libraries' code resident than a process of its own.
SCRIPTS = {
    **dict.fromkeys(
        ("evaluate.py", "merge_adapter.py", "check_adapter.py", "export_adapter.py", "tokenize_data.py"), True
    ),
    **dict.fromkeys(("export_onnx.py", "build_genai.py", "export_base_for_adapters.py"), True),
    **dict.fromkeys(
        ("prepare_data.py", "add_prefix.py", "check_parity.py", "quantize_onnx.py", "package_model.py"), False
    ),
    **dict.fromkeys(("summarize.py", "write_report.py", "write_technique_table.py"), False),
}
MODULES = {
    "": ["torch", "transformers", "accelerate", "peft", "onnxruntime", "threadpoolctl"],
    "export": ["onnxruntime.quantization", "optimum.exporters.onnx", "HF_HUB_OFFLINE=1"],
}
# While no fork shares them, the servers of both environments hold 340 and 230 MB; either is back after four CPU seconds.
IDLE_SECONDS = 60
# The path of a socket has at most 107 bytes.
LONGEST_PATH = 60


def share_imports(workflow: Any, wanted: bool, families: set[str]) -> None:
    """Let this run's jobs find a fork server, which the first of them starts; call it when jobs are about to start.

    Jobs on other machines, in containers or in Conda's environments do without, and where memory is counted, which idle
    servers hold too.

    Args:
        workflow: Snakemake's.
        wanted: what the experiment says.
        families: transformers' names of the models' families.
    """
    here = workflow.executor_plugin.name == "local" and not workflow.deployment_settings.deployment_method
    # Nobody counted the GPUs, so each job would look for one, and in a fork CUDA may not start.
    unknown = gpus.VISIBLE not in os.environ and Path("/dev/nvidiactl").exists()
    # Tests have servers of their own.
    other = "mem_mb" in workflow.global_resources or "SNAKETUNE_FORK_SERVER" in os.environ
    unfit = sys.platform != "linux" or len(tempfile.gettempdir()) > LONGEST_PATH
    if not wanted or not here or unknown or other or unfit:
        return
    directory = tempfile.mkdtemp(prefix="snaketune-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    own = [*MODULES[""], *(f"transformers.models.{name}.modeling_{name}" for name in sorted(families))]
    offered = {"scripts": SCRIPTS, "modules": {**MODULES, "": own}, "idle": IDLE_SECONDS}
    fork_client.offer(directory, owner=os.getpid(), **offered)
    prefer_programs_of(Path(directory) / "bin")
    _measure_forks(Path(directory))


def _measure_forks(directory: Path) -> None:
    """Let `benchmark:` measure the fork that a job waits for as a process of that job."""

    class Shell(psutil.Process):
        def children(self, recursive: bool = False) -> list[psutil.Process]:
            found = super().children(recursive)
            for caller in (self, *found):
                with suppress(OSError, ValueError, psutil.Error):
                    fork = psutil.Process(int((directory / str(caller.pid)).read_text()))
                    found = [*found, fork, *fork.children(recursive)]
            return found

    class Timer(benchmark.BenchmarkTimer):
        def __init__(self, pid: int, *arguments: Any):
            super().__init__(pid, *arguments)
            self.main = Shell(pid)

    benchmark.BenchmarkTimer = Timer
