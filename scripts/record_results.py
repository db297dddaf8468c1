"""Close the chain: the manifest of all results, and the resolved matrix beside it."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from snaketune import errors, files, manifest

ENDS = ("summary.csv", "comparisons.json", "metrics.json", "plots/loss.csv", "plots/quality.csv", "report.html")


def named(recipe: dict[str, Any]) -> Iterator[str]:
    """Every manifest below results/, and every result that no manifest beside it names.

    The rule's inputs are the same; so many names don't fit on a command line.
    """
    yield from ENDS
    if recipe["corpus"]:
        yield "corpus/manifest.json"
    for model in dict.fromkeys(cell[0] for cell in recipe["cells"]):
        yield f"models/{model}/base/manifest.json"
        if model in recipe["built"]:
            yield from (f"models/{model}/{name}" for name in ("pretraining.json", "pretraining.jsonl"))
            yield f"models/{model}/tokenizer/manifest.json"
    for scenario in dict.fromkeys(cell[1] for cell in recipe["cells"]):
        yield f"data/{scenario}/manifest.json"
    for model, scenario in dict.fromkeys(tuple(cell[:2]) for cell in recipe["cells"]):
        yield from (f"tokens/{model}/{scenario}/{part}/manifest.json" for part in ("training", "test"))
    backends = ["torch", *(f"onnx-{name}" for name in recipe["precisions"])]
    for model, scenario, technique, seed in recipe["cells"]:
        run = f"runs/{model}/{scenario}/{technique}/seed-{seed}"
        yield from (f"{run}/{name}" for name in ("parity.json", "merged/manifest.json"))
        yield from (f"{run}/onnx/{name}/manifest.json" for name in recipe["precisions"])
        yield from (f"{run}/evaluation/{name}{end}" for name in backends for end in (".json", ".predictions.jsonl"))
        yield f"{run}/evaluation/torch.logits.safetensors"
        if technique in recipe["with_adapter"]:
            yield f"{run}/evaluation/adapter.logits.safetensors"
        if technique != "base":
            yield from (f"{run}/{name}" for name in ("train.jsonl", "resources.json", "manifest.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recipe",
        type=json.loads,
        required=True,
        help='JSON: {"cells", "precisions", …, "parameters": the resolved matrix}',
    )
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    recipe, results = arguments.recipe, arguments.results

    parameters = results / "params.yaml"
    files.write_text(parameters, yaml.safe_dump(recipe.pop("parameters"), allow_unicode=True))
    found = [results / name for name in named(recipe)]
    manifests = [path for path in found if path.name == "manifest.json"]
    alone = [parameters, *(path for path in found if path.name != "manifest.json")]
    manifest.record(results, recipe, manifests, alone)
    print(f"{len(alone)} files, {len(manifests)} manifests")


if __name__ == "__main__":
    errors.run(main)
