"""Prove every result: each file against its manifest, each manifest against what was made from it.

The chain runs from the raw data to the report: a manifest holds the hashes of its files and of
its inputs, and the manifest of all results those of every other. Exit code 1 names each break.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.provenance import manifest_chain


def hashed(paths: set[Path]) -> dict[Path, str]:
    """SHA-256 of each existing file, each read once, on all cores (hashlib lets go of the interpreter's lock)."""
    existing = sorted(path for path in paths if path.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(existing, pool.map(files.sha256, existing), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    if not (results / "manifest.json").exists():
        raise UserError(f"{results}/manifest.json is missing, the end of the chain: run snakemake (or `make restore`)")

    found = list(manifest_chain.links(results))
    digests = hashed({path for path, _, _ in found})
    wrong = 0
    for path, expected, by in found:
        if fault := manifest.fault_of(path, expected, digests.__getitem__):
            wrong += 1
            print(f"{fault}; {by} names it", file=sys.stderr)
    if alone := manifest_chain.strangers(results, found):
        print(f"{len(alone)} files belong to no current run, {alone[0]} first (`make prune` lists them)")
    if wrong:
        raise UserError(f"{wrong} breaks: delete what has changed and run snakemake, or `make restore`")
    size = sum(path.stat().st_size for path in digests) / 2**20
    print(f"{len(digests)} files ({size:,.0f} MiB) are what {len(found)} entries of the manifests say")


if __name__ == "__main__":
    errors.run(main)
