"""Follow the manifests from the report back to the raw data, and find files that none of them names."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from snaketune.core import files, manifest
from snaketune.core.contract import ON_REQUEST, TEMPORARY
from snaketune.core.errors import UserError

Link = tuple[Path, str, Path]


def links(results: Path) -> Iterator[Link]:
    """Yield each file, its expected SHA-256 and the manifest that names it, from the manifest of all results backwards.

    Raises:
        UserError: a manifest is missing or damaged.
    """
    waiting, seen = [results / "manifest.json"], set[Path]()
    while waiting or (waiting := _unseen_on_request(results, seen)):
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        content = manifest.read(path)
        for name, entry in content["files"].items():
            file = path.parent / name
            if file.exists() or not any(f"/{part}/" in file.as_posix() for part in TEMPORARY) or _kept(results):
                yield file, entry["sha256"], path
        for name, expected in content["inputs"].items():
            file = results.parent / name
            yield file, expected, path
            if file.name == "manifest.json" and file.is_relative_to(results) and file.exists():
                waiting.append(file)


def _unseen_on_request(results: Path, seen: set[Path]) -> list[Path]:
    found = (one / "manifest.json" for one in on_request(results, seen))
    return [path for path in found if path.exists() and path not in seen]


def on_request(results: Path, named: set[Path]) -> list[Path]:
    """Return the directories and files made on request of the runs and models that ``named`` has a manifest of."""
    return [
        made
        for owners, inner in ON_REQUEST.items()
        for owner in results.glob(re.sub(r"\{\w+\}", "*", owners))
        if any(path.name == "manifest.json" and path.is_relative_to(owner) for path in named)
        for pattern in inner
        for made in owner.glob(pattern)
    ]


@cache
def _kept(results: Path) -> bool:
    """Tell if the recorded experiment keeps its intermediates."""
    content = files.read_yaml(results / "params.yaml")
    try:
        return bool(content["experiment"]["keep_intermediates"])
    except (TypeError, KeyError):
        raise UserError(
            f"{results}/params.yaml has no experiment.keep_intermediates: delete it and run snakemake to make it again"
        ) from None


def unnamed(results: Path, found: list[Link]) -> list[Path]:
    """Return the files that no manifest names: of an earlier experiment, or put there by hand."""
    named = {results / "manifest.json", *(path for path, _, _ in found)}
    named |= {path.with_name("provenance.json") for path in named if path.name == "manifest.json"}
    aside = [path for path in (results / "tuning.csv", results / "tuning") if path.exists()]
    aside += on_request(results, named)
    everything = (path for path in results.rglob("*") if path.is_file() and not files.is_scratch(path, results))
    return sorted(p for p in everything if p not in named and not any(p.is_relative_to(one) for one in aside))


def check_unlocked() -> None:
    """Raise a UserError if Snakemake runs in this directory or left a lock there."""
    if any(Path(".snakemake/locks").glob("*")):
        raise UserError(
            "Snakemake is running here or was killed: wait for it to end, or remove its lock with `snakemake --unlock`"
        )
