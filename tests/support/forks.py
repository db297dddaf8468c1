"""The fork servers of the tests: one for this environment, one for that of the exports."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snaketune.core.fork_server import start
from support.environments import python_of

TRAIN = ["transformers.models.phi3.modeling_phi3", "accelerate", "peft", "threadpoolctl"]
EXPORT = ["onnxruntime.quantization", "onnxruntime_genai", "optimum.exporters.onnx"]
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
}


@contextmanager
def serving() -> Iterator[Path]:
    """Both servers, known to every Snakemake and launcher that is started meanwhile."""
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="forks-") as directory:
        servers = [
            start(directory, sys.executable, TRAIN, QUIET),
            start(directory, python_of("export"), EXPORT, {**QUIET, "HF_HUB_OFFLINE": "1"}),
        ]
        # torchrun starts each rank by the second.
        names = {"SNAKETUNE_FORK_SERVER": directory, "PYTHON_EXEC": f"{directory}/bin/python"}
        os.environ |= names
        yield Path(directory)
        for name in names:
            del os.environ[name]
        for server in servers:
            server.kill()
            server.wait()
