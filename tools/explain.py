"""Show what made a file, and why Snakemake would or would not remake it."""

import argparse
import datetime
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import errors
from snaketune.core.file_digests import lock_digest
from snaketune.core.files import sha256
from snaketune.core.nested import differences
from snaketune.provenance.snakemake_records import configfiles, dry_run, provenance_of, recipe_of, snakemake_record


def locks() -> dict[str, str]:
    """Return the name of each lock file by its digest."""
    root = Path(__file__).parents[1]
    return {lock_digest(path): str(path.relative_to(root)) for path in sorted(root.glob("envs/*/requirements.txt"))}


def origin(path: Path) -> dict[str, Any]:
    """Return what made the file: rule, time, commit, recipe, environment and inputs."""
    record = snakemake_record(path)
    recipe = recipe_of(record)
    provenance = provenance_of(path)
    environment = recipe.pop("environment", None)
    return {
        "file": {"path": str(path), "sha256": sha256(path), "bytes": path.stat().st_size},
        "made": {
            "by rule": record["rule"],
            "at": datetime.datetime.fromtimestamp(record["endtime"], datetime.UTC).isoformat(timespec="seconds"),
            "commit": provenance.get("commit"),
            "python": provenance.get("python"),
            "hardware": provenance.get("hardware"),
            "log": record["log"],
        },
        "code": recipe.pop("code", None),
        "environment": f"{environment} ({locks().get(environment or '', 'no current lock file has this digest')})",
        "recipe": recipe,
        "inputs": {name: record["input_checksums"].get(name, "verified by a manifest") for name in record["input"]},
    }


def reasons(plan: str) -> list[str]:
    """Return a line for each job that would run: what it does and why, with the keys of changed params."""
    found = []
    for what, why in re.findall(r"^Job \d+: (.*)\nReason: (.*)$", plan, flags=re.MULTILINE):
        changed = re.search(r"before: (.*?) now: (.*?)(?:;|$)", why)
        if changed:
            why = "; ".join([why.split(":", 1)[0], *(changed_keys(*changed.groups()))])
        found.append(f"{what}: {why}")
    return found


def changed_keys(before: str, now: str) -> list[str]:
    """Return each key that differs between two recipes in JSON, or both texts if they are no recipes."""
    try:
        values = [json.loads(text[text.index("{") : text.rindex("}") + 1]) for text in (before, now)]
    except ValueError:
        return [f"{before} → {now}"]
    return [f"{key}: {a} → {b}" for key, (a, b) in differences(*values).items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="a result, such as results/summary.csv")
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays config/config.yaml")
    arguments = parser.parse_args()
    path = Path(os.path.relpath(arguments.file))
    if not path.is_file():
        raise errors.UserError(f"{path}: no such file: give the path of a result")
    print(yaml.safe_dump(origin(path), sort_keys=False, allow_unicode=True, width=100))
    found = reasons(dry_run(*configfiles(arguments.configfile), "--", str(path)))
    if found:
        print(f"Snakemake would run {len(found)} job{'s' if len(found) > 1 else ''} to remake it:")
        print("\n".join(f"- {line}" for line in found))
    else:
        print("Snakemake would not remake it: its recipe, code, environment and inputs are unchanged")


if __name__ == "__main__":
    errors.run(main)
