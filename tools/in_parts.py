"""Run a long experiment in parts, store what each measured, and write a table from the parts run so far.

A part consists of whole runs: it can be run anywhere, in any order, and again after a kill. Each run is stored as one
archive as soon as it is finished, with its answers, figures, costs and manifests; of its models, only their hashes. A
run that is stored isn't made again. The first seed's models are exported too. Minutes are expected from measurements
with SmolLM2-135M on two quiet cores. An experiment with a `learning_rate_grid` is tuned: each of its runs trains at
one rate.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from collect_tuning import choice
from parts import ROOT, Parts, by_scenario
from snaketune.core import errors, files
from snaketune.core.errors import UserError
from snaketune.core.paths import Cell
from snaketune.provenance.snakemake_records import configfiles, dry_run, nothing_to_do, snakefile
from snaketune.reporting.params import SummaryParams
from snaketune.reporting.results import Results
from snaketune.reporting.seeds_table import of_scenario
from write_figures import write

# Where the archives of experiments are, below benchmarks/, and the page with the table, between markers of the experiment's name.
PLACES = {
    "smollm2-table": ("smollm2", "README.md"),
    "smollm2-tune": ("smollm2-tune", "docs/tuning.md"),
    "peft-methods": ("peft-methods", "docs/techniques.md"),
    # The first seed was measured by the screening.
    "peft-ranking": ("peft-methods", "docs/techniques.md"),
}
# Seconds between looks for finished runs; one look at a run that is finished, or was before an edit, takes some five.
LOOK = 240


def part_of(text: str) -> tuple[int, int]:
    """Read k/n."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"PART={text}: expected a part and the number of parts, such as 1/8, up to 8/8")
    return int(found[1]), int(found[2])


def listed(parts: Parts) -> Iterator[str]:
    """Yield a line per part: its runs, their expected minutes, and which are there."""
    for wanted in range(1, parts.count + 1):
        own = parts.part(wanted)
        there = sum(parts.archive(cell).exists() for cell in own)
        minutes = sum(map(parts.minutes, own))
        yield f"{wanted}/{parts.count}  {minutes:.0f} min  {there} of {len(own)} finished: {', '.join(map(parts.name, own))}"


def keep_finished(parts: Parts, cells: list[Cell], configuration: list[str], commit: str, sure: bool = False) -> None:
    """Keep the runs whose files are all there and as Snakemake would make them now, ``sure`` if it says so; one that can't be doesn't hold up the others."""
    for cell in cells:
        names = [f"results/{name}" for name in parts.kept(cell)]
        if parts.archive(cell).exists() or not all(map(Path.is_file, map(Path, names))):
            continue
        try:
            if sure or nothing_to_do(dry_run(*configuration, "--", *names)):
                parts.keep(cell, parts.made(cell, commit))
                print(f"kept {parts.archive(cell)}", flush=True)
        except (UserError, OSError) as error:
            print(f"{parts.name(cell)} isn't kept yet: {error}", file=sys.stderr)


def run(parts: Parts, cells: list[Cell], options: list[str]) -> None:
    """Make what is kept of some runs with Snakemake, unless it is there, and keep each run as soon as it is finished."""
    with tempfile.TemporaryDirectory() as directory:
        parts.restore(Path(directory))
    todo = [cell for cell in cells if not parts.archive(cell).exists()]
    described = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip() or "no commit"
    configuration = configfiles([str(parts.experiment)])
    targets = [f"results/{name}" for cell in todo for name in parts.kept(cell)]
    command = [sys.executable, "-m", "snakemake", *snakefile(), *configuration, *options, "--", *targets]
    if todo:
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                try:
                    process.wait(LOOK)
                except subprocess.TimeoutExpired:
                    keep_finished(parts, todo, configuration, commit)
        keep_finished(parts, todo, configuration, commit, sure=process.returncode == 0)
    there = sum(parts.archive(cell).exists() for cell in cells)
    print(f"{parts.directory}: stored {there} of the part's {len(cells)} runs")
    if there < len(cells):
        raise UserError(
            "not every run is finished: see logs/ for what failed, and run the same command again to continue"
        )


def tuned(parts: Parts, there: list[Cell], results: Path) -> str:
    """Return the validation loss of each technique at each rate, with the chosen one in bold."""
    heads = ["technique", *(f"{rate:g}" for rate in parts.rates)]
    lines, edges, tokens = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"], [], set()
    for technique in dict.fromkeys(cell[2] for cell in there):
        last = {cell[3]: files.read_jsonl(results / parts.kept(cell)[0])[-1] for cell in there if cell[2] == technique}
        tokens |= {one["tokens"] for one in last.values()}
        rows = [{"learning_rate": parts.rates[k], "validation_loss": one["validation_loss"]} for k, one in last.items()]
        chosen = parts.rates.index(choice(rows)["learning_rate"])
        values = {k: f"{one['validation_loss']:.3f}" for k, one in last.items()}
        values[chosen] = f"**{values[chosen]}**"
        lines.append(f"| `{technique}` | {' | '.join(values.get(k, '–') for k in range(len(parts.rates)))} |")
        if chosen in (0, len(parts.rates) - 1):
            edges.append(technique)
    model, scenario, *_ = there[0]
    note = f"{model} on `{scenario}`: nats per completion token of validation rows after one epoch of {max(tokens):,} tokens, seed {parts.matrix.experiment.seeds[0]}."
    if edges:
        note += f" At the end of the grid: {', '.join(edges)}; widen it for all techniques."
    return "\n".join([*lines, "", note])


def table(parts: Parts) -> str:
    """Return the table of each scenario from the runs that are there, what differs in their code, and which parts are missing."""
    with tempfile.TemporaryDirectory() as directory:
        results, blocks = Path(directory), []
        there = parts.restore(results)
        if not there:
            raise UserError(f"{parts.directory}: no part of {parts.experiment} has been run: run one first")
        recipe = parts.matrix.summary_recipe() | {"cells": list(map(list, there))}
        measured = Results(results, cast("SummaryParams", recipe))
        for model, scenario, own in by_scenario(there):
            if parts.rates:
                blocks.append(tuned(parts, own, results))
            else:
                blocks.append(of_scenario(measured, model, scenario, {cell: parts.backends(cell) for cell in own}))
        blocks += filter(None, [parts.code(there, results)])
    if len(there) < len(parts.cells):
        missing = {k: [one for one in parts.part(k) if one not in there] for k in range(1, parts.count + 1)}
        told = "; ".join(f"{k}/{parts.count} ({', '.join(map(parts.name, own))})" for k, own in missing.items() if own)
        note = f"**Incomplete**: {len(there)} of {len(parts.cells)} runs are finished. Missing, by part: {told}."
        blocks.insert(0, note)
    return "\n\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=ROOT / "config/experiments/smollm2-table.yaml")
    parser.add_argument("--directory", type=Path, help="of the archives (benchmarks/ and the experiment's name)")
    parser.add_argument("--part", help="k/n; without --run only n is used, by default parts of 80 minutes")
    parser.add_argument("--run", action="store_true", help="run the part, and keep its results")
    parser.add_argument("--table", action="store_true", help="write the table of the runs kept so far into --page")
    parser.add_argument("--page", type=Path, help="a page with <!-- NAME --> and <!-- /NAME -->, NAME the experiment's")
    parser.add_argument("options", nargs="*", help="for Snakemake, after --, such as --cores 2")
    arguments = parser.parse_args()
    name = arguments.experiment.stem
    place, page = PLACES.get(name, (name, "README.md"))
    wanted, count = part_of(arguments.part) if arguments.part else (1, None)
    parts = Parts(arguments.experiment, arguments.directory or Path("benchmarks", place), count)
    if arguments.run:
        run(parts, parts.part(wanted), arguments.options)
    if arguments.table:
        marker = "smollm2" if name == "smollm2-table" else name
        write([arguments.page or Path(page)], {marker: table(parts)})
    if not (arguments.run or arguments.table):
        print("\n".join(listed(parts)))


if __name__ == "__main__":
    errors.run(main)
