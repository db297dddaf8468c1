"""Restore the results that dvc.lock names: fetch them, verify every hash, then put them in place.

Nothing is overwritten: a local file that differs from dvc.lock is an error, and so is a corrupt object in
the cache or the remote. Snakemake's own records are restored too, so that it has nothing left to do.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import errors, files
from snaketune.core.errors import UserError
from snaketune.provenance import manifest_chain
from snaketune.provenance.snakemake_records import dry_run, nothing_to_do


def dvc(*arguments: str) -> str:
    """Return what a DVC command prints.

    Raises:
        UserError: it failed; the message has its last lines.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode:
        last = [line for line in shown.stderr.splitlines() if line.strip()][-6:]
        raise UserError(
            f"`dvc {' '.join(arguments)}` failed:\n  "
            + "\n  ".join(last)
            + "\n`dvc remote list` shows the remotes; `dvc remote modify --local` sets your own location and credentials"
        )
    return shown.stdout


def git(*arguments: str) -> str:
    shown = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if shown.returncode:
        raise UserError(f"`git {arguments[0]}` failed: {shown.stderr.strip()}; run restore in a git checkout")
    return shown.stdout


def check_workplace() -> None:
    """Raise a UserError if restoring could mix two states."""
    if not Path("dvc.lock").exists():
        raise UserError("there is no dvc.lock: this commit has no recorded run; `dvc repro` records one")
    changed = git("status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        raise UserError(
            f"{len(changed)} files have uncommitted changes (such as {changed[0][3:]}), but dvc.lock describes the commit: commit or stash them, then restore"
        )
    manifest_chain.check_unlocked()


def outputs() -> list[dict[str, Any]]:
    """Return the path and MD5 of every output that dvc.lock and the committed .dvc files name."""
    stages = files.read_yaml(Path("dvc.lock"))["stages"].values()
    listed = git("ls-files", "-z", "*.dvc").split("\0")
    found = [out for stage in stages for out in stage["outs"]]
    for name in map(Path, filter(None, listed)):
        found += [{**out, "path": str(name.parent / out["path"])} for out in files.read_yaml(name)["outs"]]
    return found


def object_path(cache: Path, md5: str) -> Path:
    return cache / "files/md5" / md5[:2] / md5[2:]


def contents(out: dict[str, Any], cache: Path) -> dict[Path, str]:
    """Return the MD5 of each file of an output, which the cache lists in a directory object."""
    if not out["md5"].endswith(".dir"):
        return {Path(out["path"]): out["md5"]}
    path = object_path(cache, out["md5"])
    if f"{md5_of(path)}.dir" != out["md5"]:
        raise UserError(f"{path}, the list of {out['path']} in DVC's cache, is corrupt: delete it and restore again")
    return {Path(out["path"], entry["relpath"]): entry["md5"] for entry in json.loads(path.read_text())}


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def differing(expected: dict[Path, str]) -> list[Path]:
    """Return the existing files whose MD5 is not the expected one, computed on all cores."""
    existing = [path for path in expected if path.exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [path for path, md5 in zip(existing, pool.map(md5_of, existing), strict=True) if md5 != expected[path]]


def check_cache(expected: dict[Path, str], cache: Path) -> None:
    """Raise a UserError if an object of the cache is missing or does not match its name."""
    objects = {object_path(cache, md5): (md5, path) for path, md5 in expected.items()}
    if missing := next((path for path in objects if not path.exists()), None):
        raise UserError(
            f"{objects[missing][1]} is neither in DVC's cache nor in the remote: run `dvc push` on the machine that made it"
        )
    if corrupt := differing({path: md5 for path, (md5, _) in objects.items()}):
        raise UserError(
            f"{objects[corrupt[0]][1]} differs from dvc.lock: its object in DVC's cache, {corrupt[0]}, is corrupt ({len(corrupt)} in all). Nothing was changed; delete it (`rm -f {corrupt[0]}`) and restore again to fetch it from the remote"
        )


def check_local(expected: dict[Path, str], outs: list[dict[str, Any]]) -> None:
    """Raise a UserError if a local file would be overwritten or removed."""
    roots = [Path(out["path"]) for out in outs if out["md5"].endswith(".dir")]
    here = (path for root in roots for path in root.rglob("*") if path.is_file() and not files.is_scratch(path, root))
    foreign = sorted({*(path for path in here if path not in expected), *differing(expected)})
    if foreign:
        raise UserError(
            f"{len(foreign)} local files differ from dvc.lock (such as {foreign[0]}) and would be overwritten: move {' and '.join(map(str, roots))} away, or, if another commit recorded them, run tools/restore.py --force"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="overwrite local results that differ")
    parser.add_argument("--remote", help="name of the DVC remote (default: DVC's default remote)")
    arguments = parser.parse_args()

    check_workplace()
    outs = outputs()
    print("fetching", flush=True)
    dvc("fetch", *(["--remote", arguments.remote] if arguments.remote else []))
    cache = Path(dvc("cache", "dir").strip())
    expected = {path: md5 for out in outs for path, md5 in contents(out, cache).items()}
    check_cache(expected, cache)
    if not arguments.force:
        check_local(expected, outs)
    dvc("checkout", *(["--force"] if arguments.force else []))
    if wrong := [*(path for path in expected if not path.exists()), *differing(expected)]:
        raise UserError(f"{wrong[0]} differs from dvc.lock after the checkout ({len(wrong)} in all): restore again")
    size = sum(path.stat().st_size for path in expected)
    print(f"{len(expected)} files ({size / 2**20:,.0f} MiB) match dvc.lock", flush=True)

    if nothing_to_do(dry_run()):
        print("Snakemake has nothing to do")
    else:
        print(
            "Snakemake would still run jobs: this commit's code or configuration is newer than its dvc.lock; `snakemake -n` says which"
        )


if __name__ == "__main__":
    errors.run(main)
