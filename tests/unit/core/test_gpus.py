"""Jobs on one machine get GPUs of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from snaketune.core import gpus
from snaketune.core.errors import UserError

SCRIPTS = Path(__file__).parents[3] / "scripts"


def on_gpu(folder: Path, names: str, count: int, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, SCRIPTS / "on_gpu.py", str(count), *command],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "TMPDIR": str(folder), gpus.GPUS: names},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_job_sees_gpus_that_no_other_has_until_it_ends(tmp_path: Path) -> None:
    show = ("sh", "-c", f"echo ${gpus.VISIBLE}; read end")
    first, second = (on_gpu(tmp_path, "0,1,2", count, *show) for count in (1, 2))
    seen = [job.stdout.readline().strip() for job in (first, second) if job.stdout]
    assert sorted(",".join(seen).split(",")) == ["0", "1", "2"]
    third = on_gpu(tmp_path, "0,1,2", 1, *show)
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(0.5)
    first.communicate("end\n")
    assert third.communicate("end\n")[0].strip() == seen[0]
    second.communicate("end\n")


def test_more_ranks_than_gpus_is_one_clear_line(tmp_path: Path) -> None:
    _, told = on_gpu(tmp_path, "0,1", 4, "true").communicate()
    assert told.startswith("error: this job trains on 4 GPUs, one per rank, but 2 are available: set `ranks:`")
    _, told = on_gpu(tmp_path, "0,1", 1).communicate()
    assert told.endswith("error: the command to run is missing\n")


def test_gpus_are_those_that_cuda_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for visible, found in (("", []), ("-1", []), ("3,5", ["3", "5"])):
        monkeypatch.setenv(gpus.VISIBLE, visible)
        assert gpus.gpus() == found
    monkeypatch.delenv(gpus.VISIBLE)
    assert gpus.gpus() == ["0", "1"]
    # A GPU that shares the host's memory has none to say.
    for shown, found in (("8192\n4096", 2**32), ("[N/A]", float("inf"))):
        command.write_text(f"#!/bin/sh\necho '{shown}'\n")
        assert gpus.memory_bytes() == found
    monkeypatch.setenv("PATH", "/nowhere")
    assert (gpus.gpus(), gpus.memory_bytes()) == ([], float("inf"))


def test_a_process_that_asks_for_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.GPUS, raising=False)
    with pytest.raises(UserError, match="but 0 are available"):
        gpus.take(1)
