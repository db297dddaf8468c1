"""What the manifest of all results names, by name: known before any of it exists."""

from collections.abc import Iterator
from typing import Any

from snaketune.core.precisions import backend_of

ENDS = (
    "summary.csv",
    "comparisons.json",
    "metrics.json",
    "technique_table.json",
    "plots/loss.csv",
    "plots/quality.csv",
    "report.html",
)


def named(recipe: dict[str, Any]) -> Iterator[str]:
    """Every other manifest below results/, and every result that no manifest beside it names.

    Shared by the rule and its script: so many names don't fit on a command line.
    """
    yield from ENDS
    if recipe["corpus"]:
        yield "corpus/manifest.json"
    for model in dict.fromkeys(pair[0] for pair in recipe["pairs"]):
        yield f"models/{model}/base/manifest.json"
        if model in recipe["built"]:
            yield from (f"models/{model}/{name}" for name in ("pretraining.json", "pretraining.jsonl"))
            yield f"models/{model}/tokenizer/manifest.json"
    for scenario in dict.fromkeys(pair[1] for pair in recipe["pairs"]):
        yield f"data/{scenario}/manifest.json"
    for model, scenario in recipe["pairs"]:
        yield from (f"tokens/{model}/{scenario}/{part}/manifest.json" for part in ("training", "test"))
    for model, scenario, technique, seed in recipe["cells"]:
        run = f"runs/{model}/{scenario}/{technique}/seed-{seed}"
        yield f"{run}/{'prefix' if technique in recipe['prefixed'] else 'merged'}/manifest.json"
        precisions = recipe["precisions"][technique]
        backends = ["torch", *map(backend_of, precisions)]
        if precisions:
            yield f"{run}/parity.json"
        if recipe["benchmarked"] and technique not in recipe["prefixed"]:
            yield f"{run}/benchmark.json"
        yield from (f"{run}/onnx/{name}/manifest.json" for name in precisions)
        yield from (f"{run}/evaluation/{name}{end}" for name in backends for end in (".json", ".predictions.jsonl"))
        yield f"{run}/evaluation/torch.logits.safetensors"
        if technique in recipe["with_adapter"]:
            yield f"{run}/evaluation/adapter.logits.safetensors"
        if technique != "base":
            yield from (f"{run}/{name}" for name in ("train.jsonl", "resources.json", "manifest.json"))
    yield from dict.fromkeys(path for one in recipe.get("hosted", []) for path in hosted_records(one))
    for technique, ranks, number in recipe["property_runs"]:
        yield from (f"{property_run(technique, ranks, number)}/{name}" for name in ("train.jsonl", "resources.json"))


def hosted_records(one: dict[str, Any]) -> Iterator[str]:
    """What proves a run at a service, below results/: its rows, its job, its answers."""
    model, scenario, technique, seed = one["cell"]
    runs = f"runs/{model}/{scenario}/{technique}"
    yield from (f"data/{scenario}/manifest.json", f"{runs}/rows/manifest.json", f"{runs}/seed-{seed}/manifest.json")
    asked = [f"seed-{seed}"] * one["asks"] + ["untuned"] * one["asks_untuned"]
    for part in asked:
        yield from (f"{runs}/{part}/evaluation/hosted.{end}" for end in ("json", "predictions.jsonl", "answers.jsonl"))


def hosted_files(one: dict[str, Any]) -> Iterator[str]:
    """What a service was sent and what it gave back, below results/: their manifests name them."""
    model, scenario, technique, seed = one["cell"]
    runs = f"runs/{model}/{scenario}/{technique}"
    yield from (f"{runs}/rows/{name}" for name in ("train.jsonl", "validation.jsonl", "provenance.json"))
    names = ("job.json", "finished.json", "events.jsonl", "train.jsonl", "resources.json", "model.json")
    yield from (f"{runs}/seed-{seed}/{name}" for name in (*names, "provenance.json"))


def property_run(technique: str, ranks: int, number: int) -> str:
    """Where a short run of the properties is, below results/; ``number`` is its round's, from 1."""
    return f"properties/{technique}/ranks-{ranks}/round-{number}"
