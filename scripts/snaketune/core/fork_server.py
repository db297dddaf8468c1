"""Run scripts in forks of a process that has imported their libraries already.

Importing torch, transformers and peft takes 6 CPU seconds; the rest of a job of a small experiment takes less
than one. A server holds the libraries of one environment and forks for each script. `DIRECTORY/bin/python`,
first on the PATH, asks it, and runs what isn't served as a plain Python would.

A fork imports the project's own modules itself, so it never runs stale code. It has the caller's arguments,
directory, environment, open files, cores and number of threads; its exit code and its memory are its own;
signals reach it, and it is killed, with all that it started, when its caller is. Left to a plain Python are `-c` and `-m`, and a caller
whose environment would have changed what was imported (a hash seed, which a fork can't choose any more, a
cache of models). Snakemake's `benchmark:` measures the processes below the job's shell, but a fork is the
server's child: `DIRECTORY/usage.jsonl` has what each took. Linux only.
"""

# pathlib alone would take the caller longer than all that it does.
# ruff: noqa: PTH100, PTH101, PTH103, PTH109, PTH110, PTH119, PTH120, PTH123, PTH108, PTH208

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Read when Python starts or a library is imported.
READ_AT_START = ("PYTHON", "HF_", "TRANSFORMERS_")
READ_LATER = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHON_EXEC")
REFUSED = 1000
PR_SET_PDEATHSIG = 1
Job = dict[str, Any]


def start(directory: str, python: str, modules: list[str], settings: dict[str, str]) -> Any:
    """Start the server of an environment's Python, with the modules imported under the settings; return its process.

    Raises:
        RuntimeError: it ended, for a module can't be imported.
    """
    import shlex
    import subprocess

    shim, log = f"{directory}/bin/python", f"{directory}/{environment_of(python)}.log"
    os.makedirs(os.path.dirname(shim), exist_ok=True)
    with open(shim, "w") as file:
        file.write(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-IS", __file__, "ask", directory])} "$@"\n')
    os.chmod(shim, 0o755)  # noqa: S103
    words = [python, __file__, "serve", directory, *modules, *(f"{name}={value}" for name, value in settings.items())]
    with open(log, "w") as file:
        server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file)
    if not (server.stdout and server.stdout.readline()):
        raise RuntimeError(f"the fork server of {python} ended: see {log}")
    return server


def environment_of(python: str) -> str:
    return os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(python))))


def read_at_start() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith(READ_AT_START) and k not in READ_LATER}


def wanted(words: list[str]) -> tuple[str, list[str]]:
    """The environment, and the script with its arguments, that a command line of Python asks for."""
    words = words[words[:1] == ["-u"] :]
    if words and words[0].endswith("make_environment.py") and "--" in words:
        import hashlib

        lock = words[words.index("--lock") + 1]
        with open(lock, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        return f"{os.path.basename(os.path.dirname(lock))}-{digest[:12]}", words[words.index("--") + 1 :]
    return environment_of(sys.executable), words


def ask(directory: str, words: list[str]) -> None:
    """Have a server run a script and end as it does; become a plain Python where none serves it."""
    name, script = wanted(words)
    with socket.socket(socket.AF_UNIX) as connection:
        if script and script[0].endswith(".py") and connection.connect_ex(f"{directory}/{name}.socket") == 0:
            os.umask(mask := os.umask(0))
            job: Job = {
                "words": script,
                "directory": os.getcwd(),
                "environment": dict(os.environ),
                "read_at_start": read_at_start(),
                "unbuffered": words[0] == "-u" or "PYTHONUNBUFFERED" in os.environ,
                "ignored": [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN],
                "cores": list(os.sched_getaffinity(0)),
                "umask": mask,
            }
            message = json.dumps(job).encode()
            socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
            connection.sendall(message)
            for number in set(FORWARDED) - set(job["ignored"]):
                signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
            if not (answer := connection.recv(4)):
                sys.exit("error: the fork server ended before this script did")
            code = int.from_bytes(answer, "big", signed=True)
            if code < 0:
                if -code not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
            if code != REFUSED:
                sys.exit(code)
    os.execv(sys.executable, [sys.executable, *words])


def serve(directory: str, words: list[str]) -> tuple[Job, list[int]]:
    """Import modules and serve for ever; returns only in a fork, with its job and the caller's open files."""
    import gc
    import importlib

    end_with_parent()
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    path = f"{directory}/{environment_of(sys.executable)}.socket"
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                break
            connection.close()
    end_with_parent()
    with connection:
        return keep(connection, given, f"{directory}/usage.jsonl")


def end_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def keep(connection: socket.socket, given: dict[str, str], usage: str) -> tuple[Job, list[int]]:
    """Fork once more, for the script, and stay between it and its caller until one of them ends."""
    import select
    import time

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(connection, 8, 3)
    job = json.loads(connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    if not given.items() <= job["read_at_start"].items() <= read_at_start().items():
        connection.sendall(REFUSED.to_bytes(4, "big"))
        os._exit(0)
    since = time.monotonic()
    if (child := os.fork()) == 0:
        return job, files
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
    with open(usage, "a") as file:
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
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN if number in job["ignored"] else signal.SIG_DFL)
    if signal.SIGINT not in job["ignored"]:
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
    role, place, *rest = sys.argv[1:]
    if role == "ask":
        ask(place, rest)
    run(*serve(place, rest))
