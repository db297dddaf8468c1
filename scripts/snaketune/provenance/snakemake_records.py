"""Look up what made a file: Snakemake's own record, and the manifest that names it."""

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
from snaketune.core.paths import BASE


def snakemake_record(path: Path) -> dict[str, Any]:
    """Return Snakemake's metadata of an output: rule, inputs, params, times.

    Raises:
        UserError: Snakemake has no record of the file.
    """
    name = base64.urlsafe_b64encode(path.as_posix().encode()).decode()
    # Snakemake splits names that are too long for a file system over folders, whose names begin with @.
    parts = [name[i : i + 254] for i in range(0, len(name), 254)]
    record = Path(".snakemake/metadata", *(f"@{part}" for part in parts[:-1]), parts[-1])
    if not record.is_file():
        raise UserError(
            f"{path}: Snakemake has no record of making it; give the path of a result as in `find results -type f`"
        )
    content: dict[str, Any] = read_json(record)
    return content


def snakefile() -> list[str]:
    """Return Snakemake's argument for the checkout's Snakefile, unless the working directory has one."""
    here = any(map(Path.is_file, (Path("Snakefile"), Path("workflow/Snakefile"))))
    return [] if here else ["--snakefile", str(Path(__file__).parents[3] / "Snakefile")]


def dry_run(*arguments: str) -> str:
    """Return what `snakemake --dry-run` prints, in its own words.

    Raises:
        UserError: Snakemake can't plan; the message ends with its output.
    """
    command = [sys.executable, "-m", "snakemake", *snakefile(), "--dry-run", "--nolock", "--quiet", "host", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise UserError(f"snakemake --dry-run failed; correct what it reports:\n{shown.stderr[-2000:]}")
    return shown.stdout + shown.stderr


def configfiles(paths: list[str]) -> list[str]:
    """Return Snakemake's arguments for files that overlay config/config.yaml, valid in any directory."""
    return ["--configfile", *(str(Path(path).absolute()) for path in paths)] if paths else []


def nothing_to_do(plan: str) -> bool:
    return "Nothing to be done" in plan


def recipe_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe from a record's params, which Snakemake stores as a sorted list of reprs."""
    values = (ast.literal_eval(value) for value in record["params"])
    return next((json.loads(value) for value in values if str(value).startswith("{")), {})


def run_manifest(run: Path) -> Path:
    """Return the manifest of a run's directory; for the untuned model, that of the base.

    Raises:
        UserError: the directory isn't a finished run.
    """
    path = run / "manifest.json"
    if run.parent.name == "base" and len(run.parents) > 4:
        path = run.parents[4] / BASE.format(model=run.parents[2].name) / "manifest.json"
    if run.name.startswith("seed-") and path.exists():
        return path
    raise UserError(
        f"{run} isn't a finished run: give a directory such as results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1"
    )


def provenance_of(path: Path) -> dict[str, Any]:
    """Return the provenance.json of the manifest that names a file: when, where and by which commit it was made.

    The manifest of all results names small results; their commit is the one that recorded them last.
    """
    for directory in path.parents:
        names = directory / "manifest.json"
        if names == path or (names.exists() and str(path.relative_to(directory)) in manifest.read(names)["files"]):
            content: dict[str, Any] = read_json(directory / "provenance.json")
            return content
    return {}
