"""A copy of this repository to run Snakemake in, and what Snakemake would do there."""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import psutil
import smart_open  # noqa: F401  (like the plugins below: forks find it imported)
import yaml
from snakemake.cli import get_argument_parser, main
from snakemake.utils import update_config
from snakemake.workflow import Workflow

import snaketune.platforms.registry  # noqa: F401
from snaketune.core import digest
from snaketune.core.files import read_yaml

get_argument_parser()

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENTS = "work/environments"
WITHOUT = "\nwithout one\n"


def python() -> str:
    """The Python that runs scripts: in forks, where there is a server of them."""
    return os.environ.get("PYTHON_EXEC", sys.executable)


@dataclass(frozen=True)
class Workspace:
    """A directory with the workflow in it and an experiment of its own."""

    path: Path
    experiment: str = "config/experiments/test.yaml"

    @classmethod
    def make(cls, path: Path, experiment: dict[str, object], files: dict[str, object] | None = None) -> "Workspace":
        """Copy the repository; write the experiment and further YAML files of config/."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for name in listed:
            if (REPOSITORY / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, path / name)
        share_environments(path)
        workspace = cls(path)
        for name, content in {cls.experiment: experiment, **(files or {})}.items():
            workspace.write(name, content)
        return workspace

    def copied(self, path: Path) -> "Workspace":
        """A copy with all results, which a test may change."""
        return Workspace(Path(shutil.copytree(self.path, path, symlinks=True)), self.experiment)

    def write(self, name: str, content: object) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(yaml.safe_dump(content))

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text()
        assert old in text, f"{name} doesn't hold {old!r}"
        (self.path / name).write_text(text.replace(old, new))

    def script(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A job script or a tool of the workspace, as `make` calls it."""
        folder = "tools" if (self.path / "tools" / name).is_file() else "scripts"
        command = [python(), f"{folder}/{name}", *map(str, arguments)]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)

    def told(self, name: str, *arguments: object) -> str:
        """The standard output of a script that succeeds."""
        ran = self.script(name, *arguments)
        assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
        return ran.stdout

    def run(self, *arguments: str) -> str:
        """Run Snakemake, which succeeds; returns what it printed."""
        ran = self.forked("--cores", "2", *arguments)
        said = ran.stdout + ran.stderr
        assert ran.returncode == 0, said[-8000:]
        return said

    def config(self) -> dict[str, Any]:
        """config.yaml with the experiment laid over it, as Snakemake does."""
        found: dict[str, Any] = read_yaml(self.path / "config/config.yaml")
        update_config(found, read_yaml(self.path / self.experiment))
        return found

    def summary(self) -> list[dict[str, str]]:
        with (self.path / "results/summary.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def scripts(self) -> Path:
        return self.path / "scripts"

    def forked(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in a fork of this process, which has imported it: a call takes 2 CPU seconds less."""
        return self.in_fork(lambda: main(["--configfile", self.experiment, *arguments]))

    def started(self, log: Path, *arguments: str) -> psutil.Process:
        """Snakemake in a fork of this process that isn't waited for; it appends what it prints to a file."""
        with log.open("ab") as file:
            return psutil.Process(self._fork(lambda: main(["--configfile", self.experiment, *arguments]), file, file))

    def in_fork(self, call: Callable[[], object]) -> subprocess.CompletedProcess[str]:
        """Call a function in a fork of this process, in this directory."""
        with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
            _, status = os.waitpid(self._fork(call, printed, said), 0)
            texts = []
            for file in (printed, said):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(status), *texts)

    def _fork(self, call: Callable[[], object], printed: IO[Any], said: IO[Any]) -> int:
        read_code()
        if child := os.fork():
            return child
        code: object = 0
        try:
            self.enter(printed, said)
            call()
        except SystemExit as ended:
            code = ended.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0 if code in (None, 0) else 1)

    def enter(self, printed: IO[Any], said: IO[Any]) -> None:
        """In a fork of this process: work in this directory, on its code, and write to these files."""
        for number, file in ((1, printed), (2, said)):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.chdir(self.path)
        self._share_equal_code()

    def _share_equal_code(self) -> None:
        """Where this workspace's code is the repository's, take its digests from there; else import its own."""
        scripts, own = REPOSITORY / "scripts", self.scripts
        if contents(scripts) == contents(own):
            of = digest.code_digest

            def known(script: Path, root: Path | None = None) -> str:
                return of(scripts / script.relative_to(own), root and scripts / root.relative_to(own))

            digest.code_digest = known
        else:
            for name in [name for name in sys.modules if name.split(".")[0] == "snaketune"]:
                del sys.modules[name]
            sys.path[:] = [place for place in sys.path if place != str(scripts)]

    def plans(self, *targets: str) -> dict[str, tuple[str, bool]]:
        """Each file of the DAG: the rule that makes it, and whether it is to be made again."""
        shown = self.forked("--summary", *targets)
        assert shown.returncode == 0, shown.stderr
        return plans_in(shown.stdout)

    def pending(self) -> set[str]:
        """The jobs that would run, as `rule` or `rule technique/seed[/backend]`."""
        return jobs_due(self.plans())

    def pending_without(self, names: Iterable[str]) -> dict[str, set[str]]:
        """The jobs that would run if one file were missing, for each of these.

        The DAG is built once, with every file; each fork finds one missing and decides anew which jobs must run.
        """
        build, names = Workflow._build_dag, list(names)

        def build_once(workflow: Workflow) -> None:
            build(workflow)
            for name in names:
                print(WITHOUT, flush=True)
                aside = Path(name).rename(f"{name}.aside")
                if (child := os.fork()) == 0:
                    for known in (workflow.iocache.exists_local, workflow.iocache.mtime):
                        known.pop(name, None)
                    workflow.async_run(workflow.dag.update_needrun())
                    return
                _, status = os.waitpid(child, 0)
                aside.rename(name)
                assert status == 0
            sys.stdout.flush()
            os._exit(0)

        with patch.object(Workflow, "_build_dag", build_once):
            shown = self.forked("--summary")
        assert shown.returncode == 0, shown.stderr
        texts = shown.stdout.split(WITHOUT)[1:]
        return {name: jobs_due(plans_in(text)) for name, text in zip(names, texts, strict=True)}


@dataclass(frozen=True)
class Project(Workspace):
    """A directory with a config/ of its own, of the checkout in another workspace or of a Snakefile that uses it as a module."""

    checkout: Path = REPOSITORY
    module: bool = False

    @classmethod
    def of(cls, workspace: Workspace, path: Path, module: bool, results: Iterable[str] = ()) -> "Project":
        """Make a project with a workspace's experiment, and copies of some of its folders."""
        project = cls(path, checkout=workspace.path, module=module)
        project.write("config/config.yaml", read_yaml(workspace.path / workspace.experiment))
        for name in results:
            shutil.copytree(workspace.path / name, path / name)
        if module:
            used = f"module snaketune:\n    snakefile: {str(workspace.path / 'Snakefile')!r}\n\nuse rule * from snaketune\n\nonstart:\n    snaketune.onstart()\n"
            (path / "Snakefile").write_text(used)
        return project

    @property
    def scripts(self) -> Path:
        return self.checkout / "scripts"

    def forked(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake from elsewhere."""
        where = ["--directory", str(self.path), "--workflow-profile", str(self.checkout / "profiles/default")]
        snakefile = (self.path if self.module else self.checkout) / "Snakefile"

        def call() -> None:
            os.chdir(self.path.parent)
            main(["--snakefile", str(snakefile), *where, *arguments])

        return self.in_fork(call)


def share_environments(path: Path) -> None:
    """Those of export and of the SDKs are made once and by digest, so that every copy may use them."""
    (REPOSITORY / ENVIRONMENTS).mkdir(parents=True, exist_ok=True)
    (path / ENVIRONMENTS).parent.mkdir(parents=True, exist_ok=True)
    (path / ENVIRONMENTS).symlink_to(REPOSITORY / ENVIRONMENTS)


def refusal_of(ran: subprocess.CompletedProcess[str]) -> str:
    """What a script says that refuses its input."""
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


@cache
def read_code() -> None:
    """Digest every script of the repository: forks inherit what was read."""
    for script in (REPOSITORY / "scripts").glob("*.py"):
        digest.code_digest(script)


def contents(scripts: Path) -> dict[str, bytes]:
    return {path.relative_to(scripts).as_posix(): path.read_bytes() for path in scripts.rglob("*.py")}


def plans_in(summary: str) -> dict[str, tuple[str, bool]]:
    lines = [line.split("\t") for line in summary.splitlines() if "\t" in line]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    return {row["output_file"]: (row["rule"], row["plan"] == "update pending") for row in rows}


def jobs_due(plans: dict[str, tuple[str, bool]]) -> set[str]:
    return {job_of(rule, path) for path, (rule, due) in plans.items() if due}


def job_of(rule: str, path: str) -> str:
    """A short name of the job that makes a file: `quantize_onnx lora int4`."""
    parts = Path(path).parts
    if parts[1] == "models" and parts[3] == "onnx":
        return f"{rule} base" + (f" {parts[4]}" if rule != "export_onnx" else "")
    if parts[:2] != ("results", "runs"):
        return rule
    seed = parts[5].removeprefix("seed-")
    name = f"{rule} {parts[4]}" + (f" seed {seed}" if seed not in ("0", "1") else "")
    if rule in ("quantize_onnx", "build_genai"):
        name += f" {parts[7]}"
    if rule in ("evaluate_onnx", "evaluate_genai"):
        name += f" {parts[7].split('.')[0].removeprefix('onnx-')}"
    return name


def made(workspace: Workspace) -> Workspace:
    """Every output exists, and `--touch` has written the records of params and inputs."""
    for name in workspace.plans():
        path = workspace.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    touched = workspace.forked("--touch", "--forceall", "--cores", "1")
    assert touched.returncode == 0, touched.stderr
    assert workspace.pending() == set()
    return workspace
