"""Hosted runs for tests: the environment of the SDKs, and a run's files by hand."""

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.environments import python_of
from support.forks import server
from support.workspace import REPOSITORY

from snaketune.core import manifest
from snaketune.core.files import write_jsonl
from snaketune.core.fork_server import read_at_start

LOCK = REPOSITORY / "envs/publish/requirements.txt"
# As planted where a user has real ones: no file of a run may hold it.
SECRET = "sk-planted-0123456789abcdef"  # noqa: S105


@dataclass
class Ran:
    """A script's end; its code is None where it was killed."""

    code: int | None
    output: str


class Worker:
    """Runs scripts where the SDKs are; several at once, if asked from several threads."""

    def __init__(self, forks: Path):
        self.command = [f"{forks}/bin/python", "make_environment.py", "--lock", str(LOCK), "--"]
        self.pids: list[int] = []

    def __call__(self, script: str | Path, *arguments: object, directory: Path, **environment: str | None) -> Ran:
        own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        named = {name: value for name, value in (own | read_at_start() | environment).items() if value is not None}
        command = [*self.command, str(REPOSITORY / "scripts" / script), *map(str, arguments)]
        both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, cwd=directory, env=named, **both) as process:
            self.pids.append(process.pid)
            output = process.communicate()[0]
        return Ran(None if process.returncode < 0 else process.returncode, output)


@contextmanager
def working(forks: Path) -> Iterator[Worker]:
    """Have the SDKs imported once, by a fork server in ``forks``."""
    with server(forks, python_of("publish"), ["azure.ai.ml", "azure.identity", "openai"]):
        yield Worker(forks)


@dataclass
class Hosted:
    """A service, and the scripts of a hosted run in a folder of its own, which has its rows."""

    worker: Worker
    service: Any
    recipe: dict[str, Any]
    routes: dict[str, str]
    environment: dict[str, str | None]
    folder: Path

    def run(self, script: str, *arguments: object, recipe: Any = None, directory: Any = None, **changed: Any) -> Ran:
        told = ("--recipe", json.dumps(recipe or self.recipe))
        return self.worker(script, *told, *arguments, directory=directory or self.folder, **self.environment | changed)

    def submit(self, recipe: Any = None, confirm: str = "--confirm", directory: Any = None, **changed: Any) -> Ran:
        out = (directory or self.folder) / "job.json"
        arguments = ("--data-directory", self.folder / "rows", confirm, "--output", out)
        return self.run("submit_hosted.py", *arguments, recipe=recipe, directory=directory, **changed)

    def wait(self) -> Ran:
        files = ("--job", "job.json", "--output", "finished.json", "--events", "events.jsonl")
        return self.run("wait_hosted.py", *files, "--poll-seconds", 0.01)

    def fetch(self) -> Ran:
        return self.run("fetch_hosted.py", "--run-directory", ".", "--data-directory", "rows")

    def ask(self, service: dict[str, Any], *more: object) -> Ran:
        asked = {"service": self.recipe["service"] | service, "max_new_tokens": 8}
        files = ("--rows", "data/test.jsonl", "--work", "work/answers", "--output", "answers.jsonl")
        return self.run("ask_hosted.py", *files, "--confirm", *more, recipe=asked)


def message(ran: Ran) -> str:
    """The one line that a user reads; no traceback, nothing secret."""
    assert ran.code == 1, ran.output
    told = [line for line in ran.output.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, ran.output
    assert "Traceback" not in ran.output
    assert "planted" not in ran.output
    return told[0]


def rows(count: int) -> list[dict[str, Any]]:
    """Chats about two areas that words tell apart."""
    words = (("graph", "node", "edge"), ("matrix", "vector", "tensor"))
    return [
        {
            "id": f"{number}",
            "messages": [
                {"role": "user", "content": f"Which area? {words[number % 2][number % 3]} {number}"},
                {"role": "assistant", "content": ("graphs", "algebra")[number % 2]},
            ],
            "reference": ("graphs", "algebra")[number % 2],
        }
        for number in range(count)
    ]


def write_rows(directory: Path, splits: dict[str, list[dict[str, Any]]]) -> Path:
    """A folder of rows with its manifest, as the steps before leave it."""
    for name, content in splits.items():
        write_jsonl(directory / f"{name}.jsonl", content)
    manifest.record(directory, {}, [], [directory / f"{name}.jsonl" for name in splits])
    return directory


def converted(directory: Path, count: int = 12) -> Path:
    chats = [{"messages": row["messages"]} for row in rows(count)]
    return write_rows(directory, {"train": chats, "validation": chats[:2]})


def at_once(*calls: Any) -> list[Any]:
    """The results of calls that run side by side."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call(), calls))
