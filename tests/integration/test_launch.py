"""Ranks are started, told and counted by real launchers; what they run here needs no torch."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
# Says who it is; told by a signal to end, ends with the code it was given.
RANK = """
import os, signal, sys, time
from pathlib import Path
told = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: told.append(number))
out, code, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
name = "-".join(os.environ[key] for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
(out / name).write_text(str(os.getpid()))
ends = time.monotonic() + seconds
while not told and time.monotonic() < ends:
    time.sleep(0.02)
sys.exit(code)
"""


def started(out: Path, *options: str, code: int = 0, seconds: float = 0.0) -> psutil.Popen:
    script = out / "rank.py"
    script.write_text(RANK)
    words = [sys.executable, "scripts/launch.py", *options, str(script), str(out), str(code), str(seconds)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    log = (out / "log").open("a")
    return psutil.Popen(words, cwd=ROOT, stdout=log, stderr=log, env=environment)


def ranks(out: Path) -> dict[str, int]:
    return {path.name: int(path.read_text() or 0) for path in out.iterdir() if path.name[0].isdigit()}


def waiting(running: psutil.Popen, out: Path, count: int) -> dict[str, int]:
    while len(found := ranks(out)) < count or 0 in found.values():
        assert running.poll() is None, (out / "log").read_text()
        time.sleep(0.02)
    return found


def test_nodes_meet_and_share_the_ranks(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--nodes", "2", "--ranks", "4", "--rendezvous", f"127.0.0.1:{port}"]
    nodes = [started(tmp_path, *options) for _ in range(2)]
    assert [node.wait(timeout=600) for node in nodes] == [0, 0], (tmp_path / "log").read_text()
    assert sorted(ranks(tmp_path)) == ["0-0-4", "1-1-4", "2-0-4", "3-1-4"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 1), (signal.SIGTERM, 0)], ids=str)
def test_a_signal_reaches_every_rank_and_their_codes_decide(number: signal.Signals, code: int, tmp_path: Path) -> None:
    running = started(tmp_path, "--ranks", "2", code=code, seconds=600)
    waiting(running, tmp_path, 2)
    running.send_signal(number)
    assert running.wait(timeout=600) == code
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_rank_that_a_signal_ended_is_named(tmp_path: Path) -> None:
    running = started(tmp_path, "--ranks", "2", seconds=600)
    os.kill(waiting(running, tmp_path, 2)["1-1-2"], signal.SIGKILL)
    assert running.wait(timeout=600) == 1
    said = (tmp_path / "log").read_text()
    assert "error: rank 1 was killed by SIGKILL: probably out of memory" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ("2", "error: --nodes 2, but this is not a SLURM job"),
        ("3", "error: 3 ranks cannot be spread evenly over 2 nodes"),
    ],
)
def test_what_can_not_be_launched_is_refused(ranks: str, words: str, tmp_path: Path) -> None:
    assert started(tmp_path, "--nodes", "2", "--ranks", ranks).wait(timeout=600) == 1
    assert (tmp_path / "log").read_text().startswith(words)
