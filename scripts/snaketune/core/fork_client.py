"""Ask a fork server (fork_server.py) to run a script: what `DIRECTORY/bin/python` does, first on the PATH of jobs.

The first script that is worth it starts the server of its environment, under a lock. What no server runs is run as a plain
Python would: `-c` and `-m`, scripts that aren't offered, one that sees a GPU, and any that a server refuses.
"""

# pathlib alone would take longer to import than all that this does.
# ruff: noqa: PTH100, PTH103, PTH109, PTH119, PTH120, PTH123, PTH101

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def offer(directory: str, **offered: Any) -> None:
    """Write what callers run and, unless they shall only ask servers that run already, what they may start.

    Args:
        directory: the servers' own, of a short path; one is enough for several environments.
        offered: ``scripts``, the name of each that is served and whether it may start a server; ``modules`` that a server
            imports and settings (NAME=VALUE) that it does so under, by the folder of the environment's lock file ("": the
            callers' own environment); ``owner``, the process it ends with; ``idle``, seconds after which it ends.
    """
    import shlex

    os.makedirs(f"{directory}/bin", exist_ok=True)
    with open(f"{directory}/offer.json", "w") as file:
        json.dump(offered, file)
    with open(f"{directory}/bin/python", "w") as file:
        file.write(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-IS", __file__, directory])} "$@"\n')
    os.chmod(f"{directory}/bin/python", 0o755)  # noqa: S103


def start(python: list[str], directory: str, name: str, owner: int, idle: float, words: list[str]) -> int:
    """Start a server with the modules and settings of ``words``; return its process's number, or 0 if it ended."""
    import subprocess

    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fork_server.py")  # noqa: PTH118
    command = [*python, program, directory, name, str(owner), str(idle), *words]
    # What makes its environment first prints to this script's log.
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return int(ran.stdout.partition(b"ready ")[2] or 0)


def environment_of(python: str) -> str:
    return os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(python))))


def wanted(words: list[str]) -> tuple[str, str, list[str]]:
    """The lock file's folder, the environment, and the script with its arguments that a command line of Python asks for."""
    if words and words[0].endswith("make_environment.py") and "--" in words:
        import hashlib

        lock = words[words.index("--lock") + 1]
        with open(lock, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        folder = os.path.basename(os.path.dirname(lock))
        return folder, f"{folder}-{digest[:12]}", words[words.index("--") + 1 :]
    return "", environment_of(sys.executable), words


def reach(connection: socket.socket, directory: str, words: list[str]) -> list[str]:
    """Connect to the server of a command line of Python; return the script with its arguments, or nothing if none serves it."""
    folder, name, script = wanted(words)
    asked, path = os.path.basename(script[0]) if script else "", f"{directory}/{name}.socket"
    with open(f"{directory}/offer.json") as file:
        offered = json.load(file)
    starts = offered.get("scripts", {asked: False})
    # A process can't use a GPU after a fork if its parent has touched one.
    if not asked.endswith(".py") or asked not in starts or (offered and os.environ.get("CUDA_VISIBLE_DEVICES")):
        return []
    if connection.connect_ex(path) == 0:
        return script
    if not starts[asked]:
        return []
    import fcntl

    with open(f"{directory}/{name}.lock", "a+") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        guard.seek(0)
        if connection.connect_ex(path) == 0:
            return script
        if guard.read():
            return []
        python = [sys.executable, *words[: -len(script)]]
        if start(python, directory, name, offered["owner"], offered["idle"], offered["modules"][folder]):
            connection.connect(path)
            return script
        guard.write("failed")
    with open(f"{directory}/{name}.log") as file:
        why = (file.read().splitlines() or ["killed"])[-1]
    print(
        f"warning: each job imports its libraries itself, because no shared process is available: {why}",
        file=sys.stderr,
        flush=True,
    )
    return []


def ask(directory: str, words: list[str]) -> None:
    """Have a server run a script and end as it does; become a plain Python where none serves it."""
    given = words[words[:1] == ["-u"] :]
    # A server that ends just now has run nothing.
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        if (script := reach(connection, directory, given)) and accepted(connection, script, given != words):
            follow(connection)
    os.execv(sys.executable, [sys.executable, *words])


def accepted(connection: socket.socket, script: list[str], unbuffered: bool) -> bool:
    """Hand a script over, with all that a process has from its caller; from now on it has this process's signals."""
    os.umask(mask := os.umask(0))
    ignored = [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    job: dict[str, Any] = {
        "caller": os.getpid(),
        "words": script,
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "unbuffered": unbuffered or "PYTHONUNBUFFERED" in os.environ,
        "ignored": ignored,
        "handled": [number for number in FORWARDED if number not in ignored],
        "cores": list(os.sched_getaffinity(0)),
        "umask": mask,
    }
    message = json.dumps(job).encode()
    socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(message)

    def forward(number: int, frame: object) -> None:
        with suppress(OSError):
            connection.sendall(bytes([number]))

    for number in job["handled"]:
        signal.signal(number, forward)
    return connection.recv(1) == b"y"


def follow(connection: socket.socket) -> None:
    """Wait for the script's end, and end as it does."""
    answer = b""
    with suppress(OSError):
        answer = connection.recv(4)
    if not answer:
        # Not as a user's mistake, "error: …", reads: the job may be tried again.
        sys.exit("the process that imported this script's libraries ended before the script did")
    code = int.from_bytes(answer, "big", signed=True)
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2:])
