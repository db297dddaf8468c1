"""Prove every result: each file against its manifest, each manifest against what was made from it.

The chain runs from the raw data to the report: a manifest holds the hashes of its files and of
its inputs, and the manifest of all results those of every other. Exit code 1 names each break.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from snaketune import errors, files, manifest
from snaketune.errors import UserError

NOT_HASHED = ("provenance.json",)
TEMPORARY = ("/merged/", "/onnx/fp32/")


def links(results: Path, kept: bool) -> Iterator[tuple[Path, str, Path]]:
    """(file, expected SHA-256, the manifest that says so) of each file and each input of every manifest."""
    for path in sorted(results.rglob("manifest.json")):
        content = manifest.read(path)
        for name, entry in content["files"].items():
            file = path.parent / name
            if kept or file.exists() or not any(part in file.as_posix() for part in TEMPORARY):
                yield file, entry["sha256"], path
        for name, expected in content["inputs"].items():
            yield results.parent / name, expected, path


def hashed(paths: set[Path]) -> dict[Path, str]:
    """SHA-256 of each existing file, each read once, on all cores (hashlib lets go of the interpreter's lock)."""
    existing = sorted(path for path in paths if path.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(existing, pool.map(files.sha256, existing), strict=True))


def faults(found: list[tuple[Path, str, Path]], digest: Callable[[Path], str]) -> Iterator[str]:
    for path, expected, by in found:
        if fault := manifest.fault_of(path, expected, digest):
            role = "a file of" if path.is_relative_to(by.parent) and path.name != "manifest.json" else "an input of"
            yield f"{fault}: {role} {by}"


def strangers(results: Path, known: set[Path]) -> list[Path]:
    """Files that no manifest names: left by an earlier experiment, or put there by hand."""
    named = {*known, results / "manifest.json"}
    everything = (path for path in results.rglob("*") if path.is_file() and path.name not in NOT_HASHED)
    return sorted(path for path in everything if path not in named and not files.is_scratch(path, results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    if not (results / "manifest.json").exists():
        raise UserError(f"{results}/manifest.json is missing, the end of the chain: run snakemake (or `make restore`)")

    settings: dict[str, Any] = files.read_yaml(results / "params.yaml")["experiment"]
    found = list(links(results, kept=settings["keep_intermediates"]))
    digests = hashed({path for path, _, _ in found})
    wrong = list(faults(found, digests.__getitem__))
    for line in wrong:
        print(line, file=sys.stderr)
    if alone := strangers(results, set(digests)):
        print(f"{len(alone)} files belong to no current run, {alone[0]} first (`make prune` lists old runs)")
    if wrong:
        raise UserError(f"{len(wrong)} breaks: delete the named files and run snakemake, or `make restore`")
    size = sum(path.stat().st_size for path in digests) / 2**20
    print(f"{len(digests)} files ({size:,.0f} MiB) are what {len(found)} entries of the manifests say")


if __name__ == "__main__":
    errors.run(main)
