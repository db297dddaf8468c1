"""Describe a command job of Azure Machine Learning that runs this workflow: its file, its checks and its name."""

import fnmatch
import hashlib
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, model_validator

from snaketune.config.base import Name, Strict
from snaketune.config.validation import validated
from snaketune.core import files
from snaketune.core.errors import UserError

# Never uploaded: a checkout with one of these is refused. Everything else that git doesn't ignore is sent.
SECRETS = (".env", ".env.*", "*.pem", "*.key", "*.pfx", "id_rsa*", "id_ed25519*", "*.kubeconfig", "credentials*")
Uri = Annotated[str, Field(pattern=r"^azureml://datastores/[A-Za-z0-9_-]+/paths/[A-Za-z0-9._/-]+$")]


class Environment(Strict):
    """Where the container comes from: exactly one of build and image."""

    build: str | None = Field(None, description="a Dockerfile of this checkout, built by the workspace")
    image: str | None = Field(None, description="an image that the workspace can pull, with its tag or digest")

    @model_validator(mode="after")
    def _one_origin(self) -> "Environment":
        if (self.build is None) == (self.image is None):
            raise ValueError("give exactly one of build, image")
        if self.image and "@" not in self.image and ":" not in self.image.rsplit("/", 1)[-1]:
            raise ValueError("image needs a tag or digest: `latest` may be another image tomorrow")
        return self


class Job(Strict):
    """One run of Snakemake on one machine of an existing compute cluster."""

    compute: Name = Field(description="name of the cluster in the workspace")
    instance_type: Name = Field(description="the cluster's machine, such as Standard_NC24ads_A100_v4: checked")
    instance_count: PositiveInt = Field(1, description="machines; only 1, because the ranks of a technique share one")
    process_count_per_instance: PositiveInt = Field(
        1, description="how often a machine starts the command; only 1, because Snakemake starts the ranks"
    )
    environment: Environment = Environment(build="Dockerfile")
    experiment: str | None = Field(None, description="a file for --configfile; config/config.yaml if not given")
    targets: list[str] = Field(default_factory=list, description="Snakemake targets; everything if not given")
    data: Uri | None = Field(None, description="a folder that is copied to data/, for scenarios with a `path`")
    results: Uri = Field(description="a folder for results/, logs/ and Snakemake's records, even of a failed run")
    hours: PositiveInt = Field(24, description="time limit of the job")
    shared_memory: str = Field(
        "8g",
        pattern=r"^[1-9][0-9]*[mg]$",
        description="shared memory of the container, which ranks exchange data through",
    )
    attempt: PositiveInt = Field(1, description="raise it to run an identical job again")

    @model_validator(mode="after")
    def _one_snakemake(self) -> "Job":
        if self.instance_count * self.process_count_per_instance > 1:
            raise ValueError(
                "instance_count and process_count_per_instance must be 1: one Snakemake runs and starts a technique's world_size ranks on its machine; choose an instance_type with that many GPUs"
            )
        return self


def read(path: Path, root: Path) -> Job:
    """Read a job file and check it, including the files that it names.

    Raises:
        UserError: the job file is invalid; one message lists every fault.
    """
    job: Job = validated(Job, files.read_yaml(path), str(path))
    for key, name in (("experiment", job.experiment), ("environment.build", job.environment.build)):
        if name and not (root / name).is_file():
            raise UserError(f"{path}: {key}: {name}: no such file in this checkout")
    if any(target.startswith("-") for target in job.targets):
        raise UserError(
            f"{path}: targets: expected files or rules, found an option; options belong in a Snakemake profile"
        )
    return job


def checkout(root: Path) -> list[str]:
    """List every file below ``root`` that git doesn't ignore.

    Raises:
        UserError: ``root`` is no git checkout, or a file looks like a secret.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    names = sorted(name for name in set(listed.stdout.split("\0")) if name and (root / name).is_file())
    if listed.returncode or not names:
        raise UserError(f"{root}: not a git checkout, so it is unknown what to upload: run this in a clone")
    found = [name for name in names if any(fnmatch.fnmatch(Path(name).name.lower(), secret) for secret in SECRETS)]
    if found:
        raise UserError(f"{', '.join(found)}: looks like a secret and would be uploaded: add it to .gitignore")
    return names


def key_of(job: Job, root: Path, names: list[str]) -> str:
    """Return the job's name, a hash of its job file and of every file that it runs."""
    asked = job.model_dump(mode="json")
    sent = {name: files.sha256(root / name) for name in names}
    return f"st-{hashlib.sha256(json.dumps([asked, sent], sort_keys=True).encode()).hexdigest()[:15]}"


def snapshot(root: Path, names: list[str], directory: Path) -> Path:
    """Copy the files of the checkout to ``directory``; results and environments stay behind."""
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, directory / name)
    return directory


def command_of(job: Job) -> str:
    """Return the shell command of the job: it copies results even after a failure and keeps Snakemake's exit status."""
    configured = ["--configfile", job.experiment] if job.experiment else []
    snakemake = shlex.join(["snakemake", "--cores", "all", *configured, *(["--", *job.targets] if job.targets else [])])
    lines = [
        *(["mkdir -p data", "cp -r ${{inputs.data}}/. data/"] if job.data else []),
        f"({snakemake}; echo $? > .status)",
        "for made in results logs .snakemake/metadata; do if [ -e $made ]; then cp -r --parents $made ${{outputs.results}}/; fi; done",
        "exit $(cat .status)",
    ]
    return " && ".join(lines)


def document(job: Job, key: str, code: Path) -> dict[str, Any]:
    """Return the job as `az ml job create --file` reads it."""
    build = {"build": {"path": str(code), "dockerfile_path": job.environment.build}}
    folder = {"type": "uri_folder"}
    inputs = {"inputs": {"data": {**folder, "mode": "ro_mount", "path": job.data}}} if job.data else {}
    return {
        "$schema": "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json",
        "type": "command",
        "name": key,
        "display_name": key,
        "experiment_name": "snaketune",
        "code": str(code),
        "command": command_of(job),
        "environment": {"image": job.environment.image} if job.environment.image else build,
        # No telemetry.
        "environment_variables": {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
        "compute": f"azureml:{job.compute}",
        **inputs,
        "outputs": {"results": {**folder, "mode": "rw_mount", "path": f"{job.results.rstrip('/')}/{key}"}},
        "resources": {"instance_count": job.instance_count, "shm_size": job.shared_memory},
        "distribution": {"type": "pytorch", "process_count_per_instance": job.process_count_per_instance},
        "limits": {"timeout": job.hours * 3600},
    }
