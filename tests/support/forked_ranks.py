"""Calls train.py's `main` in forks that have the imports already: `forked_ranks.py RUNS.json`.

RUNS.json is a list of [ranks, arguments]. Each run's ranks find one another as torchrun's do, by
their environment; a fork saves each the many seconds that importing torch and DeepSpeed takes.
"""

import json
import os
import socket
import sys
import traceback
from pathlib import Path

import deepspeed  # noqa: F401  (forks find it imported)

import train
from snaketune.core import errors


def rank_of(rank: int, ranks: int, port: int, arguments: list[str]) -> int:
    """Start one rank; returns its process id."""
    if child := os.fork():
        return child
    code = 1
    try:
        local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        os.environ |= {name: str(value) for name, value in local.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        sys.argv = arguments
        errors.run(train.main)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for ranks, arguments in json.loads(Path(sys.argv[1]).read_text()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [rank_of(rank, ranks, port, arguments) for rank in range(ranks)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(codes):
            sys.exit(f"ranks ended with {codes}: {arguments}")


if __name__ == "__main__":
    main()
