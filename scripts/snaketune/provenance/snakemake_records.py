"""What made a file: Snakemake's own record of it, and the manifests around it."""

import ast
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json


def snakemake_record(path: Path) -> dict[str, Any]:
    """Snakemake's metadata of an output: rule, input, params, times.

    Raises:
        UserError: Snakemake has no record of the file.
    """
    name = base64.urlsafe_b64encode(path.as_posix().encode()).decode()
    # Longer names than file systems allow are split over folders, each but the last after an @.
    parts = [name[i : i + 254] for i in range(0, len(name), 254)]
    record = Path(".snakemake/metadata", *(f"@{part}" for part in parts[:-1]), parts[-1])
    if not record.is_file():
        raise UserError(
            f"{path}: Snakemake has no record of making it; give the path of a result as in `find results -type f`"
        )
    content: dict[str, Any] = read_json(record)
    return content


def dry_run(*arguments: str) -> str:
    """What `snakemake --dry-run` prints.

    Raises:
        UserError: Snakemake can't plan; with the end of what it says.
    """
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise UserError(f"snakemake can't plan what is left to do:\n{shown.stderr[-2000:]}")
    return shown.stdout + shown.stderr


def configfiles(paths: list[str]) -> list[str]:
    """Snakemake's arguments for files laid over config/config.yaml, to be called from anywhere."""
    return ["--configfile", *(str(Path(path).absolute()) for path in paths)] if paths else []


def nothing_to_do(plan: str) -> bool:
    return "Nothing to be done" in plan


def recipe_of(record: dict[str, Any]) -> dict[str, Any]:
    """The recipe among a record's params, which Snakemake keeps as a sorted list of reprs."""
    values = (ast.literal_eval(value) for value in record["params"])
    return next((json.loads(value) for value in values if str(value).startswith("{")), {})


def run_manifest(run: Path) -> Path:
    """The manifest of a run's directory; of the untuned model, that of its merged model.

    Raises:
        UserError: the directory isn't a finished run.
    """
    for path in (run / "manifest.json", run / "merged/manifest.json"):
        if run.name.startswith("seed-") and path.exists():
            return path
    raise UserError(f"{run} is no finished run: give a directory like results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1")


def provenance_of(path: Path) -> dict[str, Any]:
    """When, where and by which commit a file was made: what lies beside the manifest that names it.

    Small results are named by the manifest of all results: theirs is the commit that recorded them last.
    """
    for directory in path.parents:
        names = directory / "manifest.json"
        if names == path or (names.exists() and str(path.relative_to(directory)) in manifest.read(names)["files"]):
            content: dict[str, Any] = read_json(directory / "provenance.json")
            return content
    return {}
