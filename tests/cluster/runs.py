"""Runs of one short job through profiles/slurm, which waits for as long as a test holds it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from loopback import ACCOUNT, until
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


@dataclass
class Runs:
    workspace: Workspace
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def make(cls, path: Path) -> "Runs":
        workspace = small(path, {**SMALL, "techniques": ["lora"], "precisions": []})
        script = path / f"scripts/{RULE}.py"
        head, rest = script.read_text().split('"""\n', 1)
        script.write_text(f'{head}"""\n{HELD}{rest}')
        runs = cls(workspace)
        runs.site("slurm_account: my-account", f"slurm_account: {ACCOUNT}")
        runs.site("slurm_partition: my-partition", "slurm_partition: main")
        return runs

    def site(self, line: str, own: str) -> None:
        """Fill in a line of the profile, as its reader does."""
        self.workspace.edit(PROFILE, f"# {line}", own)

    def start(self, *arguments: str, through: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        command = [*through, sys.executable, "-m", "snakemake", "--configfile", self.workspace.experiment]
        command += ["--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1", *arguments]
        log = (self.workspace.path / f"coordinator-{len(self.running)}.log").open("w")
        self.running.append(
            subprocess.Popen(
                command,
                cwd=self.workspace.path,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **environment},
                # Started by a script, it would ignore Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
            )
        )
        return self.running[-1]

    def run(self, *arguments: str, **options: object) -> tuple[int, str]:
        """The exit code of a whole run, and what it printed."""
        code = self.start(*arguments, **options).wait(timeout=1200)  # type: ignore[arg-type]
        return code, self.printed()

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

    def held(self, *arguments: str) -> subprocess.Popen[str]:
        """A run whose only job waits."""
        self.hold()
        running = self.start(*arguments, TARGET)
        until(lambda: bool(self.started()) or running.poll() is not None, "the job to start", 600)
        assert running.poll() is None, self.printed()
        return running

    def end(self) -> None:
        for running in self.running:
            with suppress(ProcessLookupError):
                running.kill()
            running.wait()
