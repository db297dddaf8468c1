"""The inputs of jobs that depend on their cell: functions of wildcards."""

from pathlib import Path
from typing import Any

from snakemake.io import ancient

from snaketune.config.corpora import DOCUMENTATION
from snaketune.core.layout import MODEL_FILES, PREFIX_FILE, model_files
from snaketune.core.paths import property_path
from snaketune.core.precisions import backend_of, calibrates, files_read
from snaketune.dag.params import Recipes
from snaketune.dag.patterns import BASE, CORPUS, RESULTS, RUN, RUNS, TRAINING, files_in


class Inputs:
    """Input functions; large files are `ancient`, as the manifest beside them is compared instead."""

    def __init__(self, matrix: Recipes):
        self.matrix = matrix

    def scenario_source(self, wildcards: Any) -> dict[str, Any]:
        """Return the user's files, or the corpus; a scenario of the hub has none."""
        source = self.matrix.scenarios[wildcards.scenario].source
        if source.builtin in DOCUMENTATION:
            return {"manifest": f"{CORPUS}/manifest.json", "source": ancient(f"{CORPUS}/documentation.jsonl")}
        return {"source": ancient(source.paths)}

    def local_model(self, wildcards: Any) -> list[str]:
        """Return the files of a model in a local directory."""
        path = self.matrix.models[wildcards.model].path
        return list(map(str, model_files(Path(path)))) if path else []

    def final_manifest(self, wildcards: Any) -> str:
        """Return the manifest of the model that a run ends with."""
        return f"{RUN}/{'prefix' if wildcards.technique in self.matrix.prefixed else 'merged'}/manifest.json"

    def evaluated_model(self, wildcards: Any) -> dict[str, Any]:
        """Return a merged model; or, as a prefix can't be merged, the base that starts from it."""
        if wildcards.technique in self.matrix.prefixed:
            directory, prefix = BASE, [f"{RUN}/prefix/{PREFIX_FILE}"]
            manifests = [f"{BASE}/manifest.json", f"{RUN}/prefix/manifest.json"]
        else:
            directory, prefix, manifests = f"{RUN}/merged", [], [f"{RUN}/merged/manifest.json"]
        return {
            "manifests": manifests,
            "model": ancient(f"{directory}/{MODEL_FILES[0]}"),
            "files": ancient(files_in(directory, MODEL_FILES[1:])),
            "prefix": ancient(prefix),
        }

    def exported_prefix(self, wildcards: Any) -> str | list[str]:
        return f"{RUN}/onnx/{{precision}}/{PREFIX_FILE}" if wildcards.technique in self.matrix.prefixed else []

    def exports(self, wildcards: Any) -> dict[str, Any]:
        """Return every export of a run."""
        names = self.matrix.precisions_of(wildcards.technique)
        read = {name: files_read(name in self.matrix.genai) for name in names}
        return {
            "manifests": [f"{RUN}/onnx/{name}/manifest.json" for name in names],
            "models": ancient([path for name in names for path in files_in(f"{RUN}/onnx/{name}", read[name])]),
        }

    def evaluations(self, wildcards: Any) -> dict[str, Any]:
        """Return what a parity check compares; logits change only together with the figures next to them."""
        precisions = self.matrix.precisions_of(wildcards.technique)
        backends = [f"{RUN}/evaluation/{name}" for name in ("torch", *map(backend_of, precisions))]
        return {
            "exports": [f"{RUN}/onnx/{name}/manifest.json" for name in precisions],
            "evaluations": [f"{path}{end}" for path in backends for end in (".json", ".predictions.jsonl")],
            "logits": ancient([f"{path}.logits.safetensors" for path in backends]),
        }

    def calibration_tokens(self, wildcards: Any) -> list[str]:
        """Return training rows, for a precision whose scales are found on them."""
        if not calibrates(self.matrix.export_recipe(wildcards.precision)):
            return []
        return [f"{TRAINING}/manifest.json", ancient(f"{TRAINING}/train.safetensors")]

    def adapter_logits(self, wildcards: Any) -> str | list[str]:
        adapted = wildcards.technique in self.matrix.with_adapter
        return f"{RUN}/evaluation/adapter.logits.safetensors" if adapted else []

    def hosted_model(self, wildcards: Any) -> str | list[str]:
        """Return the file with a hosted model's name; the untuned one's is in the technique."""
        return [] if wildcards.part == "untuned" else f"{RUNS}/{{part}}/model.json"

    def training_records(self, wildcards: Any) -> list[str]:
        """Return what a model card says of training; the untuned model has none."""
        names = ["manifest.json", "provenance.json", "resources.json"]
        return [] if wildcards.technique == "base" else files_in(RUN, names)

    def round_before(self, wildcards: Any) -> list[str]:
        """Return the technique's own run of the round before: if that is measured again, so are the rounds after it."""
        own = self.matrix.techniques[wildcards.technique].world_size
        run = (wildcards.technique, own, int(wildcards.round) - 1)
        return [f"{RESULTS}/{property_path(*run)}/resources.json"] if run in self.matrix.property_runs else []

    def others_before(self, wildcards: Any) -> list[str]:
        """Return the other techniques' runs of the round before, so that all see the same drift of the machine."""
        before = [run for run in self.matrix.property_runs if run[2] == int(wildcards.round) - 1]
        return [f"{RESULTS}/{property_path(*run)}/resources.json" for run in before if run[0] != wildcards.technique]
