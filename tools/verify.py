"""Verify the hash of every result, from the raw data to the report.

A manifest has the hashes of its files and inputs, and results/manifest.json those of all other
manifests. Missing or changed files are listed, and the exit code is then 1.
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


def hash_all(paths: set[Path]) -> dict[Path, str]:
    """Return the SHA-256 of each existing file, computed on all cores: hashlib releases the interpreter's lock."""
    existing = sorted(path for path in paths if path.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(existing, pool.map(files.sha256, existing), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    if not (results / "manifest.json").exists():
        raise UserError(f"{results}/manifest.json is missing: run snakemake or `make restore`")

    found = list(manifest_chain.links(results))
    digests = hash_all({path for path, _, _ in found})
    wrong = 0
    for path, expected, by in found:
        if fault := manifest.fault_of(path, expected, digests.__getitem__):
            wrong += 1
            print(f"{fault} (listed in {by})", file=sys.stderr)
    if alone := manifest_chain.unnamed(results, found):
        print(f"{len(alone)} files belong to no current run, for example {alone[0]} (`make prune` lists them)")
    if wrong:
        raise UserError(f"{wrong} files are missing or changed: delete them and run snakemake, or run `make restore`")
    size = sum(path.stat().st_size for path in digests) / 2**20
    print(f"{len(digests)} files ({size:,.0f} MiB) match all {len(found)} entries of the manifests")


if __name__ == "__main__":
    errors.run(main)
