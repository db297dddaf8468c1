"""Every file that an experiment makes below results/, by name: known before any of it exists."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from snaketune.core import layout, paths
from snaketune.core.precisions import backend_of

# Directories of a run that are deleted after use, unless the experiment keeps intermediates.
TEMPORARY = ("merged", "onnx/fp32")
# What targets other than `all` make, by the directory that it is in.
ON_REQUEST = {
    paths.RUN: ("package", "ai-toolkit", "kaito*", "onnx/adapter", "plan.json"),
    paths.MODEL: ("switchable/*",),
}


class Folder(NamedTuple):
    """A directory: the files that a manifest.json in it names, and those that stand alone."""

    path: str
    sealed: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    temporary: bool = False

    @property
    def files(self) -> list[str]:
        records = layout.RECORDS if self.sealed else ()
        return [f"{self.path}/{name}" for name in (*self.sealed, *records, *self.alone)]


def recorded(recipe: dict[str, Any]) -> Iterator[str]:
    """Yield what the manifest of all results names: the other manifests, and every file that stands alone.

    ``recipe`` is that of the rule record_results, whose script calls this too: so many names don't
    fit on a command line.
    """
    yield from (*paths.SUMMARY, paths.TABLE, *paths.PLOTS, paths.REPORT)
    for folder in folders(recipe):
        yield from (f"{folder.path}/{name}" for name in (*layout.RECORDS[: bool(folder.sealed)], *folder.alone))


def every_file(recipe: dict[str, Any], keep_intermediates: bool) -> Iterator[str]:
    """Yield each file by name: Snakemake doesn't miss a deleted file that nobody asks for."""
    yield from (*paths.SUMMARY, paths.TABLE, *paths.PLOTS, paths.REPORT, "params.yaml", *layout.RECORDS)
    for folder in folders(recipe):
        if keep_intermediates or not folder.temporary:
            yield from folder.files


def folders(recipe: dict[str, Any]) -> list[Folder]:
    """Return every directory below results/ of the recorded experiment; several runs may share one."""
    return list(dict.fromkeys(_folders(recipe)))


def _folders(recipe: dict[str, Any]) -> Iterator[Folder]:
    if recipe["corpus"]:
        yield Folder(paths.CORPUS, ("documentation.jsonl",))
    for model in dict.fromkeys(pair[0] for pair in recipe["pairs"]):
        yield Folder(paths.BASE.format(model=model), layout.MODEL_FILES)
        if model in recipe["built"]:
            yield Folder(paths.MODEL.format(model=model), alone=("pretraining.json", "pretraining.jsonl"))
            yield Folder(paths.TOKENIZER.format(model=model), layout.TOKENIZER_FILES)
    hosted = recipe["hosted"]
    for scenario in dict.fromkeys((*(pair[1] for pair in recipe["pairs"]), *(one["cell"][1] for one in hosted))):
        yield Folder(paths.DATA.format(scenario=scenario), (*(f"{name}.jsonl" for name in layout.SPLITS), "card.json"))
    for model, scenario in recipe["pairs"]:
        for pattern, names in ((paths.TRAINING, layout.TRAINING_FILES), (paths.TEST, layout.TEST_FILES)):
            yield Folder(pattern.format(model=model, scenario=scenario), names)
    for cell in recipe["cells"]:
        yield from _folders_of_a_run(recipe, *cell)
    yield from hosted_folders(hosted)
    for run in recipe["property_runs"]:
        yield Folder(paths.property_path(*run), alone=("train.jsonl", "resources.json"))


def _folders_of_a_run(recipe: dict[str, Any], model: str, scenario: str, technique: str, seed: int) -> Iterator[Folder]:
    run, precisions = paths.run_path(model, scenario, technique, seed), recipe["precisions"][technique]
    adapted, prefixed = technique in recipe["with_adapter"], technique in recipe["prefixed"]
    unmerged = technique in recipe.get("unmerged", ())
    if technique != "base":
        kept, names = ("adapter", layout.ADAPTER_FILES) if adapted else ("model", layout.MODEL_FILES[:3])
        yield Folder(run, tuple(f"{kept}/{name}" for name in names), ("train.jsonl", "resources.json"))
    if precisions:
        yield Folder(run, alone=("parity.json",))
    if recipe["benchmarked"] and not prefixed:
        yield Folder(run, alone=("benchmark.json",))
    for backend in ("torch", *map(backend_of, precisions)):
        ends = ("json", "predictions.jsonl", "logits.safetensors")
        yield Folder(f"{run}/evaluation", alone=tuple(f"{backend}.{end}" for end in ends))
    if adapted and not unmerged:
        yield Folder(f"{run}/evaluation", alone=("adapter.logits.safetensors",))
    if prefixed:
        yield Folder(f"{run}/prefix", (layout.PREFIX_FILE,))
    elif technique != "base" and not unmerged:
        yield Folder(f"{run}/merged", layout.MODEL_FILES, temporary=True)
    shipped = recipe.get("shipped", {}).get(technique)
    for name in precisions:
        if name == shipped:
            yield from _folders_of_shipped(recipe, model, scenario, technique, seed, name)
            continue
        files = layout.GENAI_FILES if backend_of(name) == name else layout.ONNX_FILES
        extra = (layout.PREFIX_FILE,) if prefixed else ()
        path = paths.export_path(model, scenario, technique, seed, precision=name, calibrated=recipe["calibrated"])
        yield Folder(path, (*files, *extra), temporary=name == "fp32")


def _folders_of_shipped(
    recipe: dict[str, Any], model: str, scenario: str, technique: str, seed: int, precision: str
) -> Iterator[Folder]:
    """Yield an adapter's, those of the base that it runs beside, and of the numbers that it was trained on."""
    files = layout.GENAI_FILES if backend_of(precision) == precision else layout.ONNX_FILES
    for kind, names in (("dequantized", layout.MODEL_FILES), ("switchable", (*files, layout.INPUTS_FILE))):
        path = paths.shipped_path(kind, model, scenario, precision=precision, calibrated=recipe["calibrated"])
        yield Folder(path, names)
    yield Folder(f"{paths.run_path(model, scenario, technique, seed)}/onnx/{precision}", (layout.ADAPTER_FILE,))


def hosted_folders(hosted: list[dict[str, Any]]) -> Iterator[Folder]:
    """Yield what services were sent and gave back: rows, jobs and their figures, answers; some again."""
    for one in hosted:
        model, scenario, technique, seed = one["cell"]
        runs = paths.RUNS.format(model=model, scenario=scenario, technique=technique)
        job = ("job.json", "finished.json", "events.jsonl", "train.jsonl", "resources.json", "model.json")
        answers = ("hosted.json", "hosted.predictions.jsonl", "hosted.answers.jsonl")
        yield from (Folder(f"{runs}/rows", ("train.jsonl", "validation.jsonl")), Folder(f"{runs}/seed-{seed}", job))
        for part in [f"seed-{seed}"] * one["asks"] + ["untuned"] * one["asks_untuned"]:
            yield Folder(f"{runs}/{part}/evaluation", alone=answers)
