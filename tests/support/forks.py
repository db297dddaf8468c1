"""The fork servers of the tests: one for this environment, one for that of the exports."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snaketune.core.fork_client import environment_of, offer, start
from support.environments import python_of

TRAIN = ["transformers.models.phi3.modeling_phi3", "accelerate", "peft", "threadpoolctl"]
EXPORT = ["onnxruntime.quantization", "onnxruntime_genai", "optimum.exporters.onnx"]
QUIET = [
    "HF_HUB_DISABLE_TELEMETRY=1",
    "DO_NOT_TRACK=1",
    "HF_HUB_DISABLE_PROGRESS_BARS=1",
    "HF_UPDATE_DOWNLOAD_COUNTS=0",
]


@contextmanager
def server(directory: str | Path, python: str, words: list[str]) -> Iterator[None]:
    """A server of an environment, for every script of it."""
    offer(str(directory))
    number = start([python], str(directory), environment_of(python), os.getpid(), 3600, words)
    assert number, f"{directory}/{environment_of(python)}.log"
    yield
    os.kill(number, signal.SIGKILL)


@contextmanager
def serving() -> Iterator[Path]:
    """Both servers, known to every Snakemake and launcher that is started meanwhile."""
    # The path of a socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="forks-") as directory,
        server(directory, sys.executable, [*TRAIN, *QUIET]),
        server(directory, python_of("export"), [*EXPORT, *QUIET, "HF_HUB_OFFLINE=1"]),
    ):
        # torchrun starts each rank by the second.
        names = {"SNAKETUNE_FORK_SERVER": directory, "PYTHON_EXEC": f"{directory}/bin/python"}
        os.environ |= names
        yield Path(directory)
        for name in names:
            del os.environ[name]
