"""Runs of one short job through profiles/slurm, which waits for as long as a test holds it."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path

from loopback import ACCOUNT, until
from snakemake.cli import main
from snakemake_executor_plugin_slurm import common_settings
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from support.experiments import SMALL, small
from support.workspace import Workspace

PROFILE = "profiles/slurm/config.yaml"
RULE = "collect_documentation"
TARGET = "results/corpus/manifest.json"
# Laid into a copy of the rule's script: it says where it runs, and goes on once nothing holds it.
HELD = """
import json, os, time
from pathlib import Path

with open("started", "a") as file:
    told = {"job": "SLURM_JOB_ID", "node": "SLURMD_NODENAME", "gpus": "CUDA_VISIBLE_DEVICES"}
    file.write(json.dumps({key: os.environ.get(name, "") for key, name in told.items()}) + "\\n")
while Path("hold").exists():
    time.sleep(0.2)
"""


async def ask_soon(executor: RemoteExecutor) -> None:
    """Wait two seconds between questions; the plugin waits ten seconds longer at each."""
    await asyncio.sleep(2)


class Coordinator(ForkProcess):
    """A Snakemake on the login node, in a fork of this process, which has imported it."""

    def __init__(self, workspace: Workspace, log: Path, arguments: list[str], environment: dict[str, str]):
        super().__init__(daemon=True)
        self.workspace, self.log, self.arguments, self.environment = workspace, log, arguments, environment

    def run(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(self.environment)
        common_settings.init_seconds_before_status_checks = int(self.environment.get("FIRST_QUESTION", "1"))
        RemoteExecutor.sleep = ask_soon  # type: ignore[method-assign]
        with self.log.open("w") as log:
            self.workspace.enter(log, log)
            main(self.arguments)

    def until(self, done: Callable[[], object], what: str, seconds: float = 600) -> None:
        """Wait until it has done something, or has ended."""
        until(lambda: bool(done()) or self.exitcode is not None, what, seconds)

    def wait(self, timeout: float = 60) -> int | None:
        """The exit code; none where it runs on."""
        self.join(timeout)
        return self.exitcode


@dataclass
class Runs:
    workspace: Workspace
    running: list[Coordinator] = field(default_factory=list)

    @classmethod
    def make(cls, path: Path) -> "Runs":
        workspace = small(path, {**SMALL, "techniques": ["lora"], "precisions": []})
        script = path / f"scripts/{RULE}.py"
        head, rest = script.read_text().split('"""\n', 1)
        script.write_text(f'{head}"""\n{HELD}{rest}')
        return cls(workspace)

    def __post_init__(self) -> None:
        """Fill in the profile, as its reader does."""
        for key, own in (("account", ACCOUNT), ("partition", "main")):
            self.workspace.edit(PROFILE, f"# slurm_{key}: my-{key}", f"slurm_{key}: {own}")

    def start(self, *arguments: str, **environment: str) -> Coordinator:
        log = self.workspace.path / f"coordinator-{len(self.running)}.log"
        words = ["--configfile", self.workspace.experiment, "--profile", "profiles/slurm", *arguments]
        self.running.append(Coordinator(self.workspace, log, words, environment))
        self.running[-1].start()
        return self.running[-1]

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What a whole run that ends with an exit code printed."""
        assert self.start(*arguments, **environment).wait(timeout=1200) == code, self.printed()
        assert "Traceback" not in self.printed(), self.printed()
        return self.printed()

    def printed(self) -> str:
        return (self.workspace.path / f"coordinator-{len(self.running) - 1}.log").read_text()

    def hold(self) -> None:
        (self.workspace.path / "hold").touch()

    def release(self) -> None:
        (self.workspace.path / "hold").unlink()

    def started(self) -> list[dict[str, str]]:
        """Job and node of each time that the rule's script started."""
        path = self.workspace.path / "started"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def held(self, *arguments: str, **environment: str) -> Coordinator:
        """A run whose only job waits."""
        self.hold()
        running = self.start(*arguments, TARGET, **environment)
        running.until(self.started, "the job to start")
        assert running.exitcode is None, self.printed()
        return running

    def end(self) -> None:
        for running in self.running:
            running.kill()
            running.join()
