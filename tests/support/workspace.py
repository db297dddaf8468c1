"""A copy of this repository to run Snakemake in, and what Snakemake would do there."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from snakemake.cli import main

import snaketune.recipes  # noqa: F401  (forks find it imported)

REPOSITORY = Path(__file__).parents[2]
# Made once and by digest, so that every copy may share them.
SHARED = ("work/environments", "work/torch_extensions")


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
        for name in SHARED:
            (REPOSITORY / name).mkdir(parents=True, exist_ok=True)
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).symlink_to(REPOSITORY / name)
        workspace = cls(path)
        for name, content in {cls.experiment: experiment, **(files or {})}.items():
            workspace.write(name, content)
        return workspace

    def write(self, name: str, content: object) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(yaml.safe_dump(content))

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text()
        assert old in text, f"{name} doesn't hold {old!r}"
        (self.path / name).write_text(text.replace(old, new))

    def script(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A script of the workspace, as `make` calls it."""
        command = [sys.executable, f"scripts/{name}", *map(str, arguments)]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Snakemake in a process of its own, as a user calls it."""
        command = [sys.executable, "-m", "snakemake", "--configfile", self.experiment, *arguments]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)

    def forked(self, *arguments: str) -> str:
        """What Snakemake prints, from a fork that has imported it: seconds less for each call."""
        with tempfile.TemporaryFile("w+") as printed:
            if (child := os.fork()) == 0:
                code: object = 1
                try:
                    sys.stdout = sys.stderr = printed
                    os.chdir(self.path)
                    main(["--configfile", self.experiment, *arguments])
                except SystemExit as ended:
                    code = ended.code
                finally:
                    printed.flush()
                    os._exit(0 if code in (None, 0) else 1)
            _, status = os.waitpid(child, 0)
            printed.seek(0)
            text = printed.read()
        assert status == 0, text
        return text

    def plans(self, *targets: str) -> dict[str, tuple[str, bool]]:
        """Each file of the DAG: the rule that makes it, and whether it is to be made again."""
        lines = [line.split("\t") for line in self.forked("--summary", *targets).splitlines() if "\t" in line]
        columns = lines[0]
        rows = [dict(zip(columns, line, strict=True)) for line in lines[1:]]
        return {row["output_file"]: (row["rule"], row["plan"] == "update pending") for row in rows}

    def pending(self) -> set[str]:
        """The jobs that would run, as `rule` or `rule technique/seed[/backend]`."""
        return {job_of(rule, path) for path, (rule, due) in self.plans().items() if due}


def job_of(rule: str, path: str) -> str:
    """A short name of the job that makes a file: `quantize_onnx lora int4`."""
    parts = Path(path).parts
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
    touched = workspace.snakemake("--touch", "--forceall", "--cores", "1")
    assert touched.returncode == 0, touched.stderr
    assert workspace.pending() == set()
    return workspace
