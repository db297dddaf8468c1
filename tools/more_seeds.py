"""Write the additional seeds that would settle what the last run left open; only those techniques train again.

They go to a file that Snakemake must be given together with the experiment from then on: it also names all earlier seeds.
Comparisons that only more test rows would settle add none.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import yaml

from snaketune.core import errors, files
from snaketune.core.errors import UserError

HEADER = "# yaml-language-server: $schema=schemas/experiment-overlay.schema.json\n# Written by `make more-seeds`.\n"
Seeds = dict[str, dict[str, dict[str, list[int]]]]


def more_seeds(comparisons: list[dict[str, Any]], added: int) -> Seeds:
    """Return every run's seeds by model, scenario and technique, with further ones for what seeds would decide."""
    found: Seeds = {}
    for one in comparisons:
        open_ones = {name for pair in one["undecided"]["seeds"] for name in pair}
        found.setdefault(one["model"], {})[one["scenario"]] = {
            name: [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + added * (name in open_ones))]
            for name, seeds in one["seeds_of"].items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=Path, default=Path("results/comparisons.json"))
    parser.add_argument("--output", type=Path, default=Path("config/more-seeds.yaml"))
    parser.add_argument("--add", type=int, default=2, help="seeds to add to each undecided technique (default: 2)")
    arguments = parser.parse_args()
    if not arguments.comparisons.exists():
        raise UserError(f"{arguments.comparisons}: no finished run: run `make demo` first")
    comparisons = files.read_json(arguments.comparisons)
    if not all("undecided" in one for one in comparisons):
        raise UserError(f"{arguments.comparisons}: made by an older version: run snakemake first")
    found = more_seeds(comparisons, arguments.add)
    files.write_text(arguments.output, HEADER + yaml.safe_dump({"more_seeds": found}, sort_keys=False))
    for one in comparisons:
        pairs = {by: ", ".join("/".join(pair) for pair in one["undecided"][by]) for by in ("seeds", "rows")}
        print(f"{one['model']} {one['scenario']}: decidable with more seeds: {pairs['seeds'] or 'nothing'}")
        if pairs["rows"]:
            print(f"  only with more test rows: {pairs['rows']}")
    print(f"{arguments.output}: pass it to Snakemake together with your experiment, as `make more-seeds` does")


if __name__ == "__main__":
    errors.run(main)
