"""Runs scripts of the repository in the environment of the SDKs: imported once, forked for each run.

Called as `worker.py SOCKET SCRIPTS`; `hosting.py` is its other end.
"""

import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path


def run(connection: socket.socket) -> None:
    with connection.makefile("rw") as file, tempfile.TemporaryFile("w+") as printed:
        request = json.loads(file.readline())
        file.write(f"{os.getpid()}\n")
        file.flush()
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        for number in (1, 2):
            os.dup2(printed.fileno(), number)
        sys.argv = request["command"]
        code: object = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        printed.seek(0)
        file.write(json.dumps({"code": code, "output": printed.read()}))


def main() -> None:
    sys.path.insert(0, sys.argv[2])
    import snaketune.platforms.hosted.azure_ml_service
    import snaketune.platforms.hosted.openai_service  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{sys.argv[1]}.part")
        server.listen()
        Path(f"{sys.argv[1]}.part").rename(sys.argv[1])
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                run(connection)
                os._exit(0)
            connection.close()


main()
