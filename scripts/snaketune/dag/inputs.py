"""The inputs of jobs that depend on their cell: functions of wildcards."""

from pathlib import Path
from typing import Any

from snakemake.io import ancient

from snaketune.config.corpora import DOCUMENTATION
from snaketune.config.export import Auto
from snaketune.config.started_adapters import start_files
from snaketune.core.layout import (
    ADAPTER_FILE,
    ADAPTER_FILES,
    GENAI_FILES,
    INPUTS_FILE,
    MODEL_FILES,
    ONNX_FILES,
    PREFIX_FILE,
    model_files,
)
from snaketune.core.paths import export_path, property_path, shipped_path, weights_path
from snaketune.core.precisions import backend_of, files_read
from snaketune.dag.patterns import BASE, CORPUS, EXPORTS, MODEL, RESULTS, RUN, RUNS, TRAINING, files_in
from snaketune.dag.recipes import Recipes


class Inputs:
    """Input functions; large files are `ancient`, because the manifest in their directory is compared instead."""

    def __init__(self, matrix: Recipes):
        self.matrix = matrix

    def scenario_source(self, wildcards: Any) -> dict[str, Any]:
        """Return the user's files, or the corpus; a scenario of the hub has none."""
        source = self.matrix.scenarios[wildcards.scenario].source
        if source.builtin in DOCUMENTATION:
            return {"manifest": f"{CORPUS}/manifest.json", "source": ancient(f"{CORPUS}/documentation.jsonl")}
        return {"source": ancient(source.paths)}

    def local_model(self, wildcards: Any) -> list[str]:
        model = self.matrix.models[wildcards.model]
        if model.gguf and model.gguf.local:
            return [model.gguf.local]
        return list(map(str, model_files(Path(model.path)))) if model.path else []

    def evaluated_model(self, wildcards: Any) -> dict[str, Any]:
        """Return a merged model; or the base, with the prefix that it starts from or the adapter beside it."""
        prefix, adapter, directory = [], [], BASE
        if wildcards.technique in self.matrix.prefixed:
            prefix = [f"{RUN}/prefix/{PREFIX_FILE}"]
            manifests = [f"{BASE}/manifest.json", f"{RUN}/prefix/manifest.json"]
        elif wildcards.technique in self.matrix.unmerged:
            adapter = files_in(f"{RUN}/adapter", ADAPTER_FILES)
            manifests = [f"{BASE}/manifest.json", f"{RUN}/manifest.json"]
        else:
            directory = self.weights(wildcards)
            manifests = [f"{directory}/manifest.json"]
        return {
            "manifests": manifests,
            "model": ancient(f"{directory}/{MODEL_FILES[0]}"),
            "files": ancient(files_in(directory, MODEL_FILES[1:])),
            "prefix": ancient(prefix),
            "adapter": ancient(adapter[:1]),
            "adapter_config": ancient(adapter[1:]),
        }

    def _shipped(self, kind: str, wildcards: Any) -> str:
        precision, calibrated = self.matrix.shipped[wildcards.technique], self.matrix.calibrated
        cell = (wildcards.model, wildcards.scenario)
        return f"{RESULTS}/{shipped_path(kind, *cell, precision=precision, calibrated=calibrated)}"

    def trained_on(self, wildcards: Any) -> str:
        """Return the manifest of the base that a technique trains on: the model's, or the numbers of an export of it."""
        shipped = wildcards.technique in self.matrix.shipped
        return f"{self._shipped('dequantized', wildcards) if shipped else BASE}/manifest.json"

    def trained_on_files(self, wildcards: Any) -> list[str]:
        return files_in(str(Path(self.trained_on(wildcards)).parent), MODEL_FILES)

    def started_from(self, wildcards: Any) -> list[str]:
        return self.start_of(wildcards.technique)

    def start_of(self, technique: str) -> list[str]:
        """Return the files of the adapter that a technique goes on from, if any."""
        start = self.matrix.techniques[technique].start_from
        return start_files(start) if start else []

    def trained_on_weights(self, wildcards: Any) -> str:
        return self.trained_on_files(wildcards)[0]

    def shipped_base(self, wildcards: Any) -> str:
        """Return the manifest of the base that a technique's adapters run beside."""
        return f"{self._shipped('switchable', wildcards)}/manifest.json"

    def shipped_inputs(self, wildcards: Any) -> str:
        return f"{self._shipped('switchable', wildcards)}/{INPUTS_FILE}"

    def weights(self, wildcards: Any) -> str:
        """Return the directory of the plain model that a run ends with."""
        cell = (wildcards.model, wildcards.scenario, wildcards.technique, wildcards.seed)
        return f"{RESULTS}/{weights_path(*cell)}"

    def export(self, wildcards: Any, precision: str, technique: str | None = None) -> str:
        """Return the directory of an export of a run, or of the untuned model that it started from."""
        run = ("base", 0) if technique == "base" else (wildcards.technique, wildcards.seed)
        cell = (wildcards.model, wildcards.scenario, *run)
        return f"{RESULTS}/{export_path(*cell, precision=precision, calibrated=self.matrix.calibrated)}"

    def weights_to_export(self, wildcards: Any) -> dict[str, Any]:
        """Return a merged model, or the base for an export of the untuned model."""
        return self._weights(wildcards.run)

    def _weights(self, run: str) -> dict[str, Any]:
        directory = f"{RESULTS}/{{tree}}/{{model}}{{run}}/merged" if run else BASE
        return {"merged": f"{directory}/manifest.json", "model": ancient(files_in(directory, MODEL_FILES))}

    def fp32_to_quantize(self, wildcards: Any) -> dict[str, Any]:
        """Return the fp32 export of the same weights; training rows too if scales are found on them."""
        untuned = wildcards.run.endswith("/base/seed-0")
        directory = f"{MODEL}/onnx/fp32" if untuned else f"{EXPORTS}/fp32"
        return {
            "fp32": f"{directory}/manifest.json",
            "model": ancient(files_in(directory, ONNX_FILES)),
            "calibration": self._calibration(wildcards),
        }

    def weights_to_build(self, wildcards: Any) -> dict[str, Any]:
        """Return what a genai export is made from: a merged model or the base, and rows if its bits are chosen on them."""
        run = "" if wildcards.run.endswith("/base/seed-0") else wildcards.run
        return {**self._weights(run), "calibration": self._calibration(wildcards)}

    def _calibration(self, wildcards: Any) -> list[str]:
        if wildcards.precision not in self.matrix.calibrated:
            return []
        tokens = TRAINING.format(model=wildcards.model, scenario=wildcards.run.split("/")[1])
        calibration = [f"{tokens}/manifest.json", ancient(f"{tokens}/train.safetensors")]
        if isinstance(self.matrix.exports[wildcards.precision].options, Auto):
            calibration.append(ancient(f"{tokens}/validation.safetensors"))
        return calibration

    def untuned_export(self, wildcards: Any) -> dict[str, Any]:
        """Return the export of the base that a prefix is added to."""
        directory = self.export(wildcards, wildcards.get("precision", "fp32"), "base")
        return {"base": f"{directory}/manifest.json", "model": ancient(files_in(directory, ONNX_FILES))}

    def packaged(self, wildcards: Any) -> dict[str, Any]:
        """Return what a package copies: a genai export, and generation_config.json of its weights."""
        export, weights = self.export(wildcards, self.matrix.packaged or ""), self.weights(wildcards)
        return {
            "manifests": [f"{export}/manifest.json", f"{weights}/manifest.json"],
            "model": ancient(files_in(export, GENAI_FILES)),
            "generation": ancient(f"{weights}/generation_config.json"),
        }

    def evaluated_export(self, wildcards: Any) -> dict[str, Any]:
        """Return what a backend reads of an export: for an adapter that runs beside its base, both."""
        directory = self.export(wildcards, wildcards.precision)
        model, *others = files_read(wildcards.precision in self.matrix.genai)
        prefixed = wildcards.technique in self.matrix.prefixed
        manifests, adapter = [f"{directory}/manifest.json"], list[str]()
        if self.matrix.shipped.get(wildcards.technique) == wildcards.precision:
            adapter, directory = [f"{directory}/{ADAPTER_FILE}"], self._shipped("switchable", wildcards)
            manifests.append(f"{directory}/manifest.json")
        return {
            "manifests": manifests,
            "model": ancient(f"{directory}/{model}"),
            "files": ancient(files_in(directory, others)),
            "prefix": ancient([f"{directory}/{PREFIX_FILE}"] if prefixed else []),
            "adapter": ancient(adapter),
        }

    def exports(self, wildcards: Any) -> dict[str, Any]:
        """Return the files of a run's own exports, which are timed; not the base that its adapter runs beside."""
        beside = self.matrix.shipped.get(wildcards.technique)
        names = [name for name in self.matrix.precisions_of(wildcards.technique) if name != beside]
        found = {self.export(wildcards, name): files_read(name in self.matrix.genai) for name in names}
        return {
            "manifests": [f"{path}/manifest.json" for path in found],
            "exports": ancient([f"{path}/{model}" for path, (model, *_) in found.items()]),
            "files": ancient([file for path, (_, *others) in found.items() for file in files_in(path, others)]),
        }

    def evaluations(self, wildcards: Any) -> dict[str, Any]:
        """Return what a parity check compares; logits change only together with the figures next to them."""
        precisions = self.matrix.precisions_of(wildcards.technique)
        backends = [f"{RUN}/evaluation/{name}" for name in ("torch", *map(backend_of, precisions))]
        return {
            "exports": [f"{self.export(wildcards, name)}/manifest.json" for name in precisions],
            "evaluations": [f"{path}{end}" for path in backends for end in (".json", ".predictions.jsonl")],
            "logits": ancient([f"{path}.logits.safetensors" for path in backends]),
        }

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
