"""A script in a fork of a server behaves as in a Python of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.workspace import python


def run(script: Path, *arguments: str, by: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    words = [by or python(), str(script), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(words, cwd=script.parent, env=environment, capture_output=True, text=True, check=False)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_fork_holds_the_libraries_and_imports_the_project_anew(tmp_path: Path) -> None:
    shown = "import sys; held = 'peft' in sys.modules; import helper; print(held, helper.VALUE)"
    script = write(tmp_path / "script.py", shown)
    for value in ("1", "'two'"):
        write(tmp_path / "helper.py", f"VALUE = {value}")
        assert run(script).stdout == f"True {value.strip(chr(39))}\n"


ENDINGS = {
    "pass": (0, ""),
    "sys.exit(3)": (3, ""),
    "sys.exit('no such file')": (1, "no such file\n"),
    "1 / 0": (1, "ZeroDivisionError: division by zero\n"),
    "os.kill(os.getpid(), signal.SIGTERM)": (-signal.SIGTERM, ""),
    "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, ""),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_script_ends_as_it_would_in_a_python_of_its_own(ending: str, tmp_path: Path) -> None:
    shown = "import atexit, os, signal, sys; print(sys.argv, os.getcwd(), os.environ['GIVEN'], sys.path[:2], __name__)"
    script = write(tmp_path / "script.py", f"{shown}\natexit.register(print, 'end')\n{ending}\n")
    plain, served = (run(script, "a b", by=by, GIVEN="x", PYTHONPATH="/y") for by in (sys.executable, None))
    code, last = ENDINGS[ending]
    assert (served.returncode, served.stdout) == (plain.returncode, plain.stdout)
    assert served.returncode == code
    assert served.stderr.endswith(last)


def test_threads_are_those_of_the_caller_and_sums_have_the_same_bytes(tmp_path: Path) -> None:
    """A sum over threads depends on their number in its last digits."""
    compute = "a = torch.linspace(-1, 1, 4_000_000).exp(); print(torch.get_num_threads(), a.sum().item().hex())"
    script = write(tmp_path / "script.py", f"import torch; {compute}; print((a.numpy() @ a.numpy()).hex())")
    for threads in ("1", "2"):
        plain, served = (run(script, by=by, OMP_NUM_THREADS=threads) for by in (sys.executable, None))
        assert served.stdout == plain.stdout
        assert served.stdout.startswith(threads)


def test_memory_is_the_forks_own(tmp_path: Path) -> None:
    peak = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    large, small = (write(tmp_path / f"{n}.py", f"held = b'x' * ({n} << 20); {peak}") for n in (300, 0))
    before, grown, after = (int(run(script).stdout) for script in (small, large, small))
    assert 290 < grown - before < 320
    assert abs(after - before) < 20


def started(script: Path) -> tuple[psutil.Popen, list[psutil.Process]]:
    """The caller of a script that waits, and the forks: the script's and that of a process it started."""
    caller = psutil.Popen([python(), str(script)], cwd=script.parent, stdout=subprocess.PIPE, text=True)
    return caller, [psutil.Process(int(number)) for number in caller.stdout.readline().split()]


WAIT = """
import os, signal, subprocess, time
below = subprocess.Popen(["sleep", "60"], start_new_session=True)
signal.signal(signal.SIGUSR1, lambda number, frame: print("warned", flush=True))
print(os.getpid(), below.pid, flush=True)
time.sleep(60)
"""


def test_signals_reach_the_fork_and_a_killed_caller_takes_it_along(tmp_path: Path) -> None:
    caller, forks = started(write(tmp_path / "script.py", WAIT))
    caller.send_signal(signal.SIGUSR1)
    assert caller.stdout.readline() == "warned\n"
    assert all(fork.is_running() for fork in forks)
    caller.kill()
    assert not psutil.wait_procs(forks, timeout=5)[1]
    caller, forks = started(tmp_path / "script.py")
    caller.send_signal(signal.SIGTERM)
    assert caller.wait(timeout=5) == -signal.SIGTERM
    for fork in forks[1:]:
        fork.kill()


def test_what_a_fork_cannot_do_is_left_to_a_python_of_its_own(tmp_path: Path) -> None:
    held = "import sys; print('peft' in sys.modules)"
    script = write(tmp_path / "script.py", held)
    assert run(script).stdout == "True\n"
    # A hash seed acts when Python starts, a cache's place when a library is imported.
    for variable in ("PYTHONHASHSEED", "HF_HOME"):
        assert run(script, **{variable: "1"}).stdout == "False\n"
    assert subprocess.check_output([python(), "-c", held], text=True) == "False\n"


def test_a_script_whose_server_ends_is_not_run_again(tmp_path: Path) -> None:
    caller, forks = started(write(tmp_path / "script.py", WAIT))
    between = forks[0].parent()
    between.suspend()
    # Read by nobody, so that the connection ends with an error.
    caller.send_signal(signal.SIGUSR1)
    between.kill()
    assert caller.wait(timeout=5) == 1
    forks[1].kill()
    assert caller.stdout.read() == ""
