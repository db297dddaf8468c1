"""Run a long experiment in parts, store what each measured, and write a table from the parts run so far.

A part consists of whole runs: it can be run anywhere, in any order, and again after a kill. For each
run one archive is stored, with its answers, figures, costs and manifests; of its models, only their hashes. The first
seed's models are exported too. Minutes are expected from measurements with SmolLM2-135M on two quiet cores.
"""

import argparse
import io
import itertools
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snakemake.utils import update_config

from snaketune.core import errors, files
from snaketune.core.errors import UserError
from snaketune.core.paths import Cell, export_path, run_path, weights_path
from snaketune.core.precisions import backend_of
from snaketune.dag.recipes import Recipes
from snaketune.platforms.registry import read_matrix
from snaketune.provenance.snakemake_records import configfiles, dry_run, nothing_to_do, snakefile
from snaketune.reporting.params import SummaryParams
from snaketune.reporting.results import UNTUNED, Results
from snaketune.reporting.seeds_table import of_scenario
from write_figures import write

ROOT = Path(__file__).parents[1]
# Processor minutes of a training of 100,000 tokens and of an evaluation of 1,000 short rows, rounded up.
TRAINING = {"peft-ia3": 8, "lora": 12, "full": 12, "dora": 16, "deepspeed": 21, "zero3": 21, "qlora": 25}
EVALUATION, EXPORTS = 5, 15
# Counted with its tokenizer.
TRAINING_TOKENS = {"areas-1000": 102_194, "qa": 127_686}
# Keys of a training's recipe that follow from files, not from the experiment.
UNSAID = ("code", "environment", "start_digests")


class Parts:
    """An experiment whose runs are divided among parts, and the directory of what was measured."""

    def __init__(self, experiment: Path, directory: Path):
        self.experiment, self.directory = experiment, directory
        config = files.read_yaml(ROOT / "config/config.yaml")
        update_config(config, files.read_yaml(experiment))
        self.matrix: Recipes = read_matrix(config, Path(), ROOT)
        self.cells = self.matrix.cells

    def backends(self, cell: Cell) -> list[str]:
        """Return what a run is evaluated with: its exports too if it has the first seed or is untuned."""
        exported = cell[3] in (0, self.matrix.experiment.seeds[0])
        return ["torch", *(map(backend_of, self.matrix.precisions_of(cell[2])) if exported else ())]

    def minutes(self, cell: Cell) -> float:
        """Return how long a run is expected to take on two cores."""
        training = 0.0 if cell[2] == UNTUNED else TRAINING.get(cell[2], max(TRAINING.values()))
        training *= TRAINING_TOKENS.get(cell[1], 100_000) / 100_000
        return (training + EVALUATION + EXPORTS * (len(self.backends(cell)) > 1)) / 2

    def part(self, wanted: int, count: int) -> list[Cell]:
        """Return the runs of a part: cut where so many minutes have passed, so that whole seeds come one after another."""
        total, passed, found = sum(map(self.minutes, self.cells)), 0.0, []
        for cell in sorted(self.cells, key=lambda one: one[3]):
            if int((passed + self.minutes(cell) / 2) * count / total) + 1 == wanted:
                found.append(cell)
            passed += self.minutes(cell)
        return found

    def kept(self, cell: Cell) -> list[str]:
        """Return the files of a run that are kept, relative to results/: what its figures are made from."""
        run, backends = run_path(*cell), self.backends(cell)
        names = [f"{run}/evaluation/{one}.{end}" for one in backends for end in ("json", "predictions.jsonl")]
        if len(backends) > 1:
            names.append(f"{run}/parity.json")
            exported = self.matrix.precisions_of(cell[2])
            calibrated = self.matrix.calibrated
            names += [f"{export_path(*cell, precision=one, calibrated=calibrated)}/manifest.json" for one in exported]
        if cell[2] == UNTUNED:
            return [*names, f"{weights_path(*cell)}/manifest.json"]
        return [*names, *(f"{run}/{name}" for name in ("manifest.json", "resources.json", "train.jsonl"))]

    def archive(self, cell: Cell) -> Path:
        return self.directory / f"{'.'.join(map(str, cell))}.tar.xz"

    def keep(self, cell: Cell, results: Path = Path("results")) -> None:
        """Archive what is kept of a finished run, byte for byte the same each time."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:xz", preset=9) as archive:
            for name in sorted(self.kept(cell)):
                entry = tarfile.TarInfo(name)
                entry.size = (results / name).stat().st_size
                with (results / name).open("rb") as file:
                    archive.addfile(entry, file)
        self.directory.mkdir(parents=True, exist_ok=True)
        with files.written_whole(self.archive(cell)) as whole:
            whole.write_bytes(content.getvalue())

    def restore(self, results: Path) -> list[Cell]:
        """Lay out the kept files of all archives below ``results``, and return their runs.

        Raises:
            UserError: a run was made by another recipe, or from other data or another model, than this experiment says.
        """
        there = [cell for cell in self.cells if self.archive(cell).exists()]
        inputs: dict[str, str] = {}
        for cell in there:
            with tarfile.open(self.archive(cell)) as archive:
                archive.extractall(results, filter="data")
            if cell[2] == UNTUNED:
                continue
            manifest = files.read_json(results / run_path(*cell) / "manifest.json")
            made = {key: value for key, value in manifest["recipe"].items() if key not in UNSAID}
            asked = self.matrix.training_recipe(cell[0], cell[2], cell[3])
            changed = sorted(key for key in made.keys() | asked.keys() if made.get(key) != asked.get(key))
            changed += sorted(name for name, sha in manifest["inputs"].items() if inputs.setdefault(name, sha) != sha)
            if changed:
                raise UserError(
                    f"{self.archive(cell)}: made with another {', '.join(changed)} than {self.experiment} or the other runs: delete it and run its part again"
                )
        return there

    def check_exports(self, results: Path, cells: list[Cell]) -> None:
        """Raise a UserError if an export of restored runs was made by another recipe than its file in config/exports/ says."""
        for cell, name in itertools.product(cells, self.matrix.exports):
            path = results / export_path(*cell, precision=name, calibrated=self.matrix.calibrated) / "manifest.json"
            made = files.read_json(path)["recipe"] if backend_of(name) in self.backends(cell) else {}
            asked = self.matrix.export_recipe(name)
            if changed := sorted(key for key in made.keys() & asked.keys() if made[key] != asked[key]):
                raise UserError(
                    f"{self.archive(cell)}: its {name} was made with another {', '.join(changed)} than config/exports/{name}.yaml says: delete it and run its part again"
                )


def part_of(text: str) -> tuple[int, int]:
    """Read k/n."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"PART={text}: expected a part and the number of parts, such as 1/8, up to 8/8")
    return int(found[1]), int(found[2])


def listed(parts: Parts, count: int) -> Iterator[str]:
    """Yield a line per part: its runs, their expected minutes, and which are there."""
    for wanted in range(1, count + 1):
        own = parts.part(wanted, count)
        there = sum(parts.archive(cell).exists() for cell in own)
        yield f"{wanted}/{count}  {sum(map(parts.minutes, own)):.0f} min  {there} of {len(own)} finished: {named(own)}"


def named(cells: list[Cell]) -> str:
    return ", ".join(f"{scenario} {technique} {seed}" for _, scenario, technique, seed in cells)


def run(parts: Parts, cells: list[Cell], options: list[str]) -> None:
    """Make what is kept of some runs with Snakemake, and keep it; after a failure, that of the runs that are finished."""
    configuration = configfiles([str(parts.experiment)])
    targets = {cell: [f"results/{name}" for name in parts.kept(cell)] for cell in cells}
    command = [sys.executable, "-m", "snakemake", *snakefile(), *configuration, *options, "--"]
    failed = subprocess.run([*command, *(name for own in targets.values() for name in own)], check=False).returncode
    done = cells
    if failed:
        made = [cell for cell in cells if all(map(Path.is_file, map(Path, targets[cell])))]
        done = [cell for cell in made if nothing_to_do(dry_run(*configuration, "--", *targets[cell]))]
    for cell in done:
        parts.keep(cell)
    print(f"{parts.directory}: stored {len(done)} of {len(cells)} runs")
    if failed:
        raise UserError(
            "not every run is finished: see logs/ for what failed, and run the same command again to continue"
        )


def table(parts: Parts, count: int) -> str:
    """Return the table of each scenario from the runs that are there, and which parts are missing."""
    with tempfile.TemporaryDirectory() as directory:
        there = parts.restore(Path(directory))
        if not there:
            raise UserError(f"{parts.directory}: no part of {parts.experiment} has been run: run one first")
        parts.check_exports(Path(directory), there)
        cells = [list(cell) for cell in there]
        results = Results(Path(directory), cast("SummaryParams", parts.matrix.summary_recipe() | {"cells": cells}))
        blocks = [
            of_scenario(results, model, scenario, {cell: parts.backends(cell) for cell in own})
            for (model, scenario), own in itertools.groupby(there, lambda cell: cell[:2])
        ]
    if len(there) < len(parts.cells):
        missing = {k: [one for one in parts.part(k, count) if one not in there] for k in range(1, count + 1)}
        told = "; ".join(f"{k}/{count} ({named(cells)})" for k, cells in missing.items() if cells)
        note = f"**Incomplete**: {len(there)} of {len(parts.cells)} runs are finished. Missing, by part: {told}."
        blocks.insert(0, note)
    return "\n\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=ROOT / "config/experiments/smollm2-table.yaml")
    parser.add_argument("--directory", type=Path, default=Path("benchmarks/smollm2"), help="(%(default)s)")
    parser.add_argument("--part", default="1/8", help="k/n; without --run only n is used")
    parser.add_argument("--run", action="store_true", help="run the part, then store its results")
    parser.add_argument("--table", action="store_true", help="write the table of the parts run so far into --page")
    parser.add_argument("--page", type=Path, default=Path("README.md"), help="(%(default)s)")
    parser.add_argument("options", nargs="*", help="for Snakemake, after --, such as --cores 2")
    arguments = parser.parse_args()
    wanted, count = part_of(arguments.part)
    parts = Parts(arguments.experiment, arguments.directory)
    if arguments.run:
        run(parts, parts.part(wanted, count), arguments.options)
    if arguments.table:
        write([arguments.page], {"smollm2": table(parts, count)})
    if not (arguments.run or arguments.table):
        print("\n".join(listed(parts, count)))


if __name__ == "__main__":
    errors.run(main)
