"""Run scripts in forks of a process that has imported their libraries already.

Importing torch, transformers and peft takes 6 CPU seconds; the rest of a job of a small experiment takes less than one.
A server holds the libraries of one environment and forks for each script that fork_client.py asks it to run. It ends when
its owner, a Snakemake, is gone, or nobody has asked it for a while.

A fork imports the project's own modules itself, so it never runs stale code. It has the caller's arguments,
directory, environment, open files, cores and number of threads; its exit code and its memory are its own;
signals reach it, and it is killed, with all that it started, when its caller is. Refused is a caller whose environment
would have changed what was imported (a hash seed, which a fork can't choose any more, a cache of models). A fork is the
server's child, not its caller's: `DIRECTORY/PID` has the fork's number while that caller waits, `DIRECTORY/usage.jsonl`
what each fork took. Linux only.
"""

# ruff: noqa: PTH100, PTH110, PTH120, PTH123, PTH108, PTH208

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Read when Python starts or a library is imported.
READ_AT_START = ("PYTHON", "HF_", "TRANSFORMERS_")
READ_LATER = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHON_EXEC")
PR_SET_PDEATHSIG = 1
Job = dict[str, Any]


def read_at_start(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(READ_AT_START) and k not in READ_LATER}


def serve(directory: str, name: str, owner: int, idle: float, words: list[str]) -> tuple[Job, list[int]]:
    """Import modules and serve; returns only in a fork, with its job and the caller's open files."""
    import gc
    import importlib
    import select
    import shutil

    os.dup2(os.open(f"{directory}/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if os.fork():
        os._exit(0)
    # Not below the job that started it, which it outlives and whose memory it isn't.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    gone = os.pidfd_open(owner)
    del sys.path[0]
    given = read_at_start()
    # No thread may run where a process forks.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    os.environ |= dict(word.split("=", 1) for word in words if "=" in word)
    for module in words:
        if "=" not in module:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
    path = f"{directory}/{name}.socket"
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        print(f"ready {os.getpid()}", flush=True)
        os.dup2(2, 1)
        while True:
            ready = select.select([listening.fileno(), gone], [], [], idle)[0]
            if gone in ready:
                shutil.rmtree(directory, ignore_errors=True)
                os._exit(0)
            if not ready and len(descendants(os.getpid())) == 1:
                os.unlink(path)
                os._exit(0)
            if ready:
                connection, _ = listening.accept()
                if os.fork() == 0:
                    break
                connection.close()
    os.close(gone)
    end_with_parent()
    with connection:
        return keep(connection, given, directory)


def end_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def keep(connection: socket.socket, given: dict[str, str], directory: str) -> tuple[Job, list[int]]:
    """Fork once more, for the script, and stay between it and its caller until one of them ends."""
    import select
    import time

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(connection, 8, 3)
    job = json.loads(connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    if not given.items() <= read_at_start(job["environment"]).items() <= read_at_start().items():
        os._exit(0)
    since = time.monotonic()
    if (child := os.fork()) == 0:
        return job, files
    with open(f"{directory}/{job['caller']}", "w") as file:
        file.write(str(child))
    connection.sendall(b"y")
    for number in files:
        os.close(number)
    ended = os.pidfd_open(child)
    while ended not in select.select([connection.fileno(), ended], [], [])[0]:
        numbers = connection.recv(64)
        for number in numbers:
            os.kill(child, number)
        for process in [] if numbers else descendants(child):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    _, status, took = os.wait4(child, 0)
    figures: Job = {"seconds": time.monotonic() - since, "cpu_seconds": took.ru_utime + took.ru_stime}
    figures |= {"peak_memory_bytes": took.ru_maxrss * 1024, "words": job["words"], "directory": job["directory"]}
    os.unlink(f"{directory}/{job['caller']}")
    with open(f"{directory}/usage.jsonl", "a") as file:
        file.write(json.dumps(figures) + "\n")
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
    os._exit(0)


def descendants(process: int) -> list[int]:
    """A process and all below it: torchrun's ranks have sessions of their own."""
    found = [process]
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{task}/children") as file:
                found += [one for child in file.read().split() for one in descendants(int(child))]
    return found


def run(job: Job, files: list[int]) -> None:
    """Run a script in this fork as a Python of its own would, and end."""
    import atexit
    import runpy
    import threading
    import traceback

    end_with_parent()
    os.setpgid(0, 0)
    for number, opened in enumerate(files):
        os.dup2(opened, number)
        os.close(opened)
    for numbers, action in ((job["ignored"], signal.SIG_IGN), (job["handled"], signal.SIG_DFL)):
        for number in numbers:
            signal.signal(number, action)
    if signal.SIGINT in job["handled"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["directory"])
    os.umask(job["umask"])
    os.sched_setaffinity(0, job["cores"])
    os.environ.clear()
    os.environ.update(job["environment"])
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(job["cores"]))
    for library, limit in (("threadpoolctl", "threadpool_limits"), ("torch", "set_num_threads")):
        if library in sys.modules:
            getattr(sys.modules[library], limit)(threads)
    for library in ("random", "numpy.random"):
        if library in sys.modules:
            sys.modules[library].seed()
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if job["unbuffered"]:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = job["words"]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [os.path.dirname(os.path.abspath(sys.argv[0])), *filter(None, paths)]
    code: Any = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code or 0)


if __name__ == "__main__":
    place, name, owner, idle, *rest = sys.argv[1:]
    run(*serve(place, name, int(owner), float(idle), rest))
