"""An experiment whose runs are divided among parts, and the archives of what each run measured.

A run of an experiment that names a learning-rate grid is one training at one rate; its number is the rate's place in
the grid.
"""

import io
import itertools
import json
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from snakemake.utils import update_config

from snaketune.core import files
from snaketune.core.errors import UserError
from snaketune.core.paths import BASE, TEST, TRAINING, Cell, export_path, run_path, weights_path
from snaketune.core.precisions import backend_of
from snaketune.dag.recipes import Recipes
from snaketune.platforms.registry import read_matrix
from snaketune.provenance.snakemake_records import recipe_of, snakemake_record
from snaketune.reporting.results import UNTUNED

ROOT = Path(__file__).parents[1]
# Processor minutes per 100,000 tokens of a file of training rows: `cpu_seconds_of_rank_0` in benchmarks/smollm2-one-seed,
# whose rows share a prompt, times the ranks, plus a tenth for starting and merging.
TRAINING_MINUTES = {"peft-ia3": 7, "lora": 8, "full": 10, "qlora": 10, "dora": 12, "deepspeed": 13, "zero3": 30}
# The other methods of peft have not been timed at that size.
UNTIMED = 16
# Of a model, and of its exports to three precisions: 1,079 short rows at the processor seconds of 540 there.
EVALUATION, EXPORTS = 5, 14
# Counted with SmolLM2's tokenizer.
TRAINING_TOKENS = {"areas-1000": 51_097, "qa-500": 63_843, "classification": 160_860}
LONGEST = 80
# Keys of a recipe that follow from files, not from the experiment; of an evaluation, also those that no table shows.
UNSAID = {"code", "environment", "start_digests"}
UNSEEN = UNSAID | {"gate", "speed_prompts", "speed_tokens", "probe"}


def differing(made: dict[str, Any], asked: dict[str, Any], unsaid: set[str]) -> list[str]:
    """Return the keys in which a recorded recipe differs from the one that the experiment asks for."""
    asked = json.loads(json.dumps(asked))
    return sorted(key for key in (made.keys() | asked.keys()) - unsaid if made.get(key) != asked.get(key))


class Parts:
    """An experiment, the directory of its archives, and the number of its parts: by default, of at most 80 minutes each."""

    def __init__(self, experiment: Path, directory: Path, count: int | None = None):
        self.experiment, self.directory = experiment, directory
        config, own = files.read_yaml(ROOT / "config/config.yaml"), files.read_yaml(experiment)
        update_config(config, own)
        self.matrix: Recipes = read_matrix(config, Path(), ROOT)
        self.rates = self.matrix.experiment.learning_rate_grid if own.get("learning_rate_grid") else []
        self.cells = self.matrix.cells
        if self.rates:
            trained = list(dict.fromkeys(cell[:3] for cell in self.cells if cell[2] != UNTUNED))
            self.cells = [(*one, place) for one in trained for place in range(len(self.rates))]
        self.count = count or len(self._filled(LONGEST))

    def backends(self, cell: Cell) -> list[str]:
        """Return what a run is evaluated with: its exports too if it has the first seed or is untuned."""
        if self.rates:
            return []
        exported = cell[3] in (0, self.matrix.experiment.seeds[0])
        return ["torch", *(map(backend_of, self.matrix.precisions_of(cell[2])) if exported else ())]

    def minutes(self, cell: Cell) -> float:
        """Return how long a run is expected to take on two cores."""
        training = 0.0 if cell[2] == UNTUNED else TRAINING_MINUTES.get(cell[2], UNTIMED)
        training *= TRAINING_TOKENS.get(cell[1], 100_000) / 100_000
        backends = len(self.backends(cell))
        return (training + EVALUATION * min(backends, 1) + EXPORTS * (backends > 1)) / 2

    def _filled(self, most: float) -> list[list[Cell]]:
        """Return parts of at most so many minutes, or of one run: seed after seed, and each run in the first part with room."""
        found: list[list[Cell]] = []
        for cell in sorted(self.cells, key=lambda one: one[3]):
            room = most - self.minutes(cell)
            part = next((own for own in found if sum(map(self.minutes, own)) <= room), None)
            if part is None:
                found.append(part := [])
            part.append(cell)
        return found

    def part(self, wanted: int) -> list[Cell]:
        """Return the runs of a part; parts are as equal as they can be."""
        average = int(sum(map(self.minutes, self.cells)) / self.count)
        found = next(own for most in itertools.count(average) if len(own := self._filled(most)) <= self.count)
        return found[wanted - 1] if wanted <= len(found) else []

    def name(self, cell: Cell) -> str:
        """Return a run's scenario, technique, and seed or rate."""
        return f"{cell[1]} {cell[2]} {f'{self.rates[cell[3]]:g}' if self.rates else cell[3]}"

    def folder(self, cell: Cell) -> str:
        """Return the directory of a run, relative to results/."""
        model, scenario, technique, place = cell
        return f"tuning/{model}/{scenario}/{technique}/{self.rates[place]:g}" if self.rates else run_path(*cell)

    def kept(self, cell: Cell) -> list[str]:
        """Return the files of a run that are kept, relative to results/: what its figures are made from."""
        run, backends = self.folder(cell), self.backends(cell)
        if self.rates:
            return [f"{run}/train.jsonl", f"{run}/resources.json"]
        names = [f"{run}/evaluation/{one}.{end}" for one in backends for end in ("json", "predictions.jsonl")]
        if len(backends) > 1:
            names.append(f"{run}/parity.json")
            names += [f"{self._export(cell, one)}/manifest.json" for one in self.matrix.precisions_of(cell[2])]
        if cell[2] == UNTUNED:
            return [*names, f"{weights_path(*cell)}/manifest.json"]
        return [*names, *(f"{run}/{name}" for name in ("manifest.json", "resources.json", "train.jsonl"))]

    def _export(self, cell: Cell, precision: str) -> str:
        return export_path(*cell, precision=precision, calibrated=self.matrix.calibrated)

    def archive(self, cell: Cell) -> Path:
        model, *_ = cell
        return self.directory / f"{model}.{self.name(cell).replace(' ', '.')}.tar.xz"

    def made(self, cell: Cell, commit: str) -> dict[str, Any]:
        """Return how a finished run was made, where none of its files says so: by Snakemake's records and the manifests of its rows."""
        model, scenario, *_ = cell
        names = [name for name in self.kept(cell) if "/evaluation/" in name and name.endswith(".json")]
        names += [name for name in self.kept(cell) if self.rates and name.endswith("train.jsonl")]
        found: dict[str, str] = {}
        for pattern in (BASE, TRAINING, TEST):
            path = Path("results", pattern.format(model=model, scenario=scenario), "manifest.json")
            if path.exists():
                of = files.read_json(path)["files"]
                found |= {f"{path.parent}/{name}": one["sha256"] for name, one in of.items() if name != "card.json"}
        recipes = {name: recipe_of(snakemake_record(Path("results", name))) for name in names}
        return {"commit": commit, "recipes": recipes, "inputs": found}

    def keep(self, cell: Cell, made: dict[str, Any], results: Path = Path("results")) -> None:
        """Archive what is kept of a finished run and how it was ``made``, byte for byte the same each time."""
        kept = {name: (results / name).read_bytes() for name in self.kept(cell)}
        kept[f"{self.folder(cell)}/made.json"] = json.dumps(made, indent=1, sort_keys=True).encode()
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:xz", preset=9) as archive:
            for name, data in sorted(kept.items()):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        self.directory.mkdir(parents=True, exist_ok=True)
        with files.written_whole(self.archive(cell)) as whole:
            whole.write_bytes(content.getvalue())

    def restore(self, results: Path, exports: bool = True) -> list[Cell]:
        """Lay out the kept files of all archives below ``results``, and return their runs.

        Raises:
            UserError: a run, its evaluation or, if it matters, an export was made by another recipe than this experiment says, or from
                other rows or another model than the others; their code may differ (``code``).
        """
        there = [cell for cell in self.cells if self.archive(cell).exists()]
        inputs: dict[str, str] = {}
        for cell in there:
            with tarfile.open(self.archive(cell)) as archive:
                archive.extractall(results, filter="data")
            changed = self._changed(cell, results, exports)
            changed += sorted(
                one for one, sha in self._inputs(cell, results).items() if inputs.setdefault(one, sha) != sha
            )
            if changed:
                again = next(k for k in range(1, self.count + 1) if cell in self.part(k))
                raise UserError(
                    f"{self.archive(cell)}: made with another {', '.join(changed)} than {self.experiment} or the other runs: delete it and run part {again}/{self.count} again"
                )
        return there

    def _records(self, cell: Cell, results: Path) -> dict[str, Any]:
        """Return how a run was made; of an archive without it, nothing."""
        path = results / self.folder(cell) / "made.json"
        return files.read_json(path) if path.exists() else {"commit": "an unrecorded commit", "recipes": {}}

    def _inputs(self, cell: Cell, results: Path) -> dict[str, str]:
        """Return the hashes of a run's rows and base model, not of their manifests, which change with the code."""
        found = self._records(cell, results).get("inputs")
        if found is None and cell[2] != UNTUNED:
            found = files.read_json(results / self.folder(cell) / "manifest.json")["inputs"]
        return found or {}

    def recipes(self, cell: Cell, results: Path) -> dict[str, dict[str, Any]]:
        """Return the recorded recipe of each step of a restored run: training, ``evaluation …`` and ``export …``."""
        run, own = self.folder(cell), self._records(cell, results)["recipes"]
        found = {f"evaluation {one}": own.get(f"{run}/evaluation/{one}.json") for one in self.backends(cell)}
        if self.rates:
            found["training"] = own.get(f"{run}/train.jsonl")
        elif cell[2] != UNTUNED:
            found["training"] = files.read_json(results / run / "manifest.json")["recipe"]
        for one in self.matrix.precisions_of(cell[2]) if len(self.backends(cell)) > 1 else ():
            found[f"export {one}"] = files.read_json(results / self._export(cell, one) / "manifest.json")["recipe"]
        return {step: recipe for step, recipe in found.items() if recipe}

    def _changed(self, cell: Cell, results: Path, exports: bool) -> list[str]:
        """Return what differs between the recipes of a run and those that the experiment asks for."""
        model, scenario, technique, place = cell
        seed, rate = (self.matrix.experiment.seeds[0], self.rates[place]) if self.rates else (place, None)
        changed = []
        for step, made in self.recipes(cell, results).items():
            kind, _, name = step.partition(" ")
            if kind == "training":
                keys = differing(made, self.matrix.training_recipe(model, technique, seed, rate), UNSAID)
            elif kind == "evaluation":
                asked = self.matrix.evaluation_recipe(scenario) | (
                    self.matrix.evaluated_with if name == "torch" else {}
                )
                keys = differing(made, asked, UNSEEN)
            elif exports and name in self.matrix.exports:
                asked = self.matrix.export_recipe(name)
                keys = differing(made, {key: asked[key] for key in made.keys() & asked.keys()}, set(made) - set(asked))
            else:
                keys = []
            changed += [f"{key} of {step}" for key in keys]
        return changed

    def code(self, cells: list[Cell], results: Path) -> str:
        """Return a sentence per step that was not made by the same code and packages in all runs, with their commits, or nothing."""
        found: dict[str, dict[tuple[str, str], list[Cell]]] = defaultdict(lambda: defaultdict(list))
        for cell in cells:
            for step, recipe in self.recipes(cell, results).items():
                found[step.split(" ")[0] if step.startswith("evaluation") else step][
                    recipe.get("code", ""), recipe.get("environment", "")
                ].append(cell)
        told = []
        for step, versions in found.items():
            if len(versions) > 1:
                groups = [list(dict.fromkeys(own)) for own in versions.values()]
                told.append(
                    f"{step}: "
                    + ", ".join(f"{self._commits(own, results)} ({', '.join(map(self.name, own))})" for own in groups)
                )
        return f"Made by different versions of the code or its packages: {'; '.join(told)}." if told else ""

    def _commits(self, cells: list[Cell], results: Path) -> str:
        return ", ".join(dict.fromkeys(self._records(cell, results)["commit"] for cell in cells))


def by_scenario(cells: list[Cell]) -> list[tuple[str, str, list[Cell]]]:
    return [(*key, list(own)) for key, own in itertools.groupby(cells, lambda cell: (cell[0], cell[1]))]
