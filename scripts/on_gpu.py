"""Run a command on GPUs of this machine that no other job uses; the command sees only those."""

import argparse
import os

from snaketune.core import errors, gpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="number of GPUs")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    given = parser.parse_args()
    if not given.command:
        parser.error("the command to run is missing")
    locks = gpus.take(given.count)  # the command inherits them, and its GPUs are free again when it ends
    for lock in locks:
        os.set_inheritable(lock.fileno(), True)
    os.execvp(given.command[0], given.command)


if __name__ == "__main__":
    errors.run(main)
