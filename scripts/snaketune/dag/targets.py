"""The files that targets and summaries ask for, by name."""

import sys
from collections.abc import Iterable
from itertools import product

from snakemake.io import ancient, temp
from snakemake.logging import logger

from snaketune.core import contract, paths
from snaketune.core.layout import ADAPTER_FILE
from snaketune.core.precisions import backend_of
from snaketune.dag.patterns import RESULTS, files_in
from snaketune.dag.recipes import Recipes


def required(found: list[str], reason: str) -> list[str]:
    """Return the files of a target, or end planning with the reason why there are none.

    Snakemake prints an exception of an input function with a traceback, and calls a target without
    any input done.
    """
    if not found:
        logger.error(f"Error: {reason}")
        sys.exit(1)
    return found


class Targets:
    """Lists of the files that the matrix makes."""

    def __init__(self, matrix: Recipes):
        self.matrix = matrix

    def runs(self, name: str, techniques: Iterable[str]) -> list[str]:
        """Return a file of every run of these techniques."""
        chosen = set(techniques)
        return [f"{RESULTS}/{paths.run_path(*cell)}/{name}" for cell in self.matrix.cells if cell[2] in chosen]

    def trained(self, *names: str) -> list[str]:
        return [path for name in names for path in self.runs(name, self.matrix.techniques)]

    def merged_manifests(self) -> list[str]:
        """Return the manifests of plain models; a run that ends with a prefix shares the untuned one."""
        found = [paths.weights_path(*cell) for cell in self.matrix.cells if cell[2] in self.matrix.merged]
        return [f"{RESULTS}/{path}/manifest.json" for path in dict.fromkeys(found)]

    def answers(self) -> list[str]:
        """Return the answers of every model before it was exported."""
        return self.runs("evaluation/torch.predictions.jsonl", ["base", *self.matrix.techniques])

    def manifests(self) -> list[str]:
        """Return the manifest of every run, and of every base model that was measured."""
        bases = dict.fromkeys(paths.BASE.format(model=cell[0]) for cell in self.matrix.cells)
        return [*self.trained("manifest.json"), *(f"{RESULTS}/{base}/manifest.json" for base in bases)]

    def evaluations(self, suffix: str) -> list[str]:
        return [
            f"{RESULTS}/{paths.run_path(*cell)}/evaluation/{backend}{suffix}"
            for cell in self.matrix.cells
            for backend in ("torch", *map(backend_of, self.matrix.precisions_of(cell[2])))
        ]

    def exports(self, name: str) -> list[str]:
        found = [
            paths.export_path(*cell, precision=precision, calibrated=self.matrix.calibrated)
            for cell in self.matrix.cells
            for precision in self.matrix.precisions_of(cell[2])
        ]
        return [f"{RESULTS}/{path}/{name}" for path in dict.fromkeys(found)]

    def parities(self) -> list[str]:
        """Return the comparison of every run's exports with what they were exported from."""
        return self.runs("parity.json", ["base", *self.matrix.techniques]) if self.matrix.experiment.precisions else []

    def benchmarks(self) -> list[str]:
        return self.runs("benchmark.json", self.matrix.merged) if self.matrix.experiment.benchmark else []

    def properties(self) -> list[str]:
        return [f"{RESULTS}/{paths.property_path(*run)}/resources.json" for run in self.matrix.property_runs]

    def hosted(self) -> list[str]:
        """Return every file of the runs at hosted services that a row of the summary rests on."""
        folders = dict.fromkeys(contract.hosted_folders(self.matrix.hosted_cells))
        data = dict.fromkeys(paths.DATA.format(scenario=one["cell"][1]) for one in self.matrix.hosted_cells)
        made = [file for folder in folders for file in folder.files]
        return files_in(RESULTS, [*(f"{directory}/manifest.json" for directory in data), *made])

    def tuning_curves(self) -> list[str]:
        experiment = self.matrix.experiment
        techniques = [name for name in self.matrix.techniques if name not in self.matrix.remote]
        tried = product(experiment.models, experiment.scenarios, techniques, experiment.learning_rate_grid)
        return [
            f"{RESULTS}/tuning/{model}/{name}/{technique}/{rate:g}/train.jsonl"
            for model, name, technique, rate in tried
        ]

    def every_file(self) -> list[str]:
        """Return every file of the contract that `all` makes."""
        keep = self.matrix.experiment.keep_intermediates
        return files_in(RESULTS, contract.every_file(self.matrix.record_recipe(), keep))

    def recorded(self) -> list[str]:
        """Return what the manifest of all results names; logits are large, and follow from what is compared."""
        named = files_in(RESULTS, contract.recorded(self.matrix.record_recipe()))
        return [ancient(path) if path.endswith(".logits.safetensors") else path for path in named]

    def intermediate(self, files: list[str]) -> list[str]:
        """Mark files as temporary unless the experiment keeps them."""
        return files if self.matrix.experiment.keep_intermediates else temp(files)

    def packages(self) -> list[str]:
        return self.runs("package/manifest.json", self.matrix.rounded if self.matrix.packaged else [])

    def runtime_adapters(self) -> list[str]:
        names = [ADAPTER_FILE, *(f"parity-{name}.json" for name in self.matrix.switchable)]
        techniques = self.matrix.switched if self.matrix.experiment.precisions else []
        return [path for name in names for path in self.runs(f"onnx/adapter/{name}", techniques)]

    def hosted_plans(self) -> list[str]:
        return [f"{RESULTS}/{paths.run_path(*one['cell'])}/plan.json" for one in self.matrix.hosted_cells]
