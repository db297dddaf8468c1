"""List results that the last finished experiment no longer includes; --delete removes them."""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import errors
from snaketune.provenance import manifest_chain


def groups(results: Path, unnamed: list[Path]) -> dict[Path, list[Path]]:
    """Group the unnamed files by the highest directory that has no other files."""
    count = Counter(parent for path in unnamed for parent in path.parents)
    every = Counter(parent for path in results.rglob("*") if path.is_file() for parent in path.parents)
    found: dict[Path, list[Path]] = {}
    for path in unnamed:
        whole = [p for p in path.parents if p != results and p.is_relative_to(results) and count[p] == every[p]]
        found.setdefault(whole[-1] if whole else path, []).append(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--delete", action="store_true")
    arguments = parser.parse_args()
    results = arguments.results

    manifest_chain.check_unlocked()
    found = groups(results, manifest_chain.unnamed(results, list(manifest_chain.links(results))))
    for path, unnamed in found.items():
        size = sum(file.stat().st_size for file in unnamed) / 2**20
        print(
            f"{'deleted' if arguments.delete else 'not in the last run'}: {path} ({len(unnamed)} files, {size:.1f} MiB)"
        )
        if arguments.delete:
            for file in unnamed:
                file.unlink()
            for folder in sorted({folder for file in unnamed for folder in file.parents}, reverse=True):
                if folder.is_relative_to(results) and not any(folder.iterdir()):
                    folder.rmdir()
    if not found:
        print("every result belongs to the last run")


if __name__ == "__main__":
    errors.run(main)
