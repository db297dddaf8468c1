"""One row per model, scenario, technique, seed and backend; every pair of techniques compared."""

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

from snaketune.core import errors, files
from snaketune.core.precisions import backend_of
from snaketune.evaluation.bootstrap import Resampling, percentiles
from snaketune.reporting.comparison import Cell, Results, compared
from snaketune.reporting.hosted_rows import hosted_rows

COLUMNS = [
    "model",
    "scenario",
    "technique",
    "seed",
    "backend",
    "metric",
    "higher_is_better",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "base_value",
    "delta",
    "delta_ci_low",
    "delta_ci_high",
    "trainable_parameters",
    "total_parameters",
    "world_size",
    "train_tokens",
    "train_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "artifact_bytes",
    "decode_tokens_per_second",
    "latency_p50_ms",
]


MEASURED = (
    "trainable_parameters",
    "total_parameters",
    "world_size",
    "train_tokens",
    "tokens_per_second",
    "peak_memory_bytes",
)


def artifact_bytes(run: Path, untuned: bool, backend: str) -> int:
    """What one keeps or ships: the adapter or all weights for torch, else the ONNX files."""
    if backend == "torch":
        manifest = run / ("merged/manifest.json" if untuned else "manifest.json")
    else:
        manifest = run / f"onnx/{backend.removeprefix('onnx-')}/manifest.json"
    entries = files.read_json(manifest)["files"]
    return sum(
        entry["bytes"] for name, entry in entries.items() if name.endswith((".safetensors", ".onnx", ".onnx_data"))
    )


def row(results: Results, cell: Cell, backend: str) -> dict[str, Any]:
    """One row of the summary; its intervals are over test rows, of this seed alone."""
    model, scenario, technique, seed = cell
    metric, run = results.metric[scenario], results.run(cell)
    figures, statistics = files.read_json(run / f"evaluation/{backend}.json"), results.statistics(cell, backend)
    draws = Resampling(len(statistics), 1, results.samples)
    value, drawn = draws.values(metric, [statistics])
    low, high = percentiles(drawn, results.confidence)
    found = {
        "model": model,
        "scenario": scenario,
        "technique": technique,
        "seed": seed,
        "backend": backend,
        "metric": metric,
        "higher_is_better": str(results.recipe["scenarios"][scenario]["higher_is_better"]).lower(),
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": figures["n"],
        "artifact_bytes": artifact_bytes(run, technique == "base", backend),
        "decode_tokens_per_second": figures["decode_tokens_per_second"],
        "latency_p50_ms": figures["latency_p50_ms"],
    }
    if technique != "base":
        untuned, under = draws.values(metric, [results.statistics([model, scenario, "base", 0], backend)])
        low, high = percentiles(drawn - under, results.confidence)
        resources = results.resources(cell)
        found |= {"base_value": untuned, "delta": value - untuned, "delta_ci_low": low, "delta_ci_high": high}
        found |= {"train_seconds": resources["seconds"], **{name: resources[name] for name in MEASURED}}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    parser.add_argument("--comparisons", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    arguments = parser.parse_args()

    results = Results(arguments.results, arguments.recipe)
    cells = arguments.recipe["cells"]
    precisions = arguments.recipe["precisions"]
    rows = [
        row(results, cell, backend) for cell in cells for backend in ("torch", *map(backend_of, precisions[cell[2]]))
    ]
    rows += hosted_rows(results, arguments.recipe.get("hosted", []))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    tree: dict[str, Any] = {}
    known = [found for found in rows if found["value"] is not None]
    for found in known:
        branch = tree
        for key in (found["model"], found["scenario"], found["technique"], f"seed-{found['seed']}"):
            branch = branch.setdefault(key, {})
        branch[found["backend"]] = {found["metric"]: found["value"]}
    files.write_text(arguments.summary, text.getvalue())
    files.write_json(
        arguments.comparisons,
        [compared(results, *pair) for pair in dict.fromkeys((cell[0], cell[1]) for cell in cells)],
    )
    files.write_json(arguments.metrics, tree)
    for found in known:
        print(
            f"{found['model']} {found['scenario']} {found['technique']} {found['backend']}: {found['metric']} {found['value']:.3f} [{found['ci_low']:.3f}, {found['ci_high']:.3f}]"
        )


if __name__ == "__main__":
    errors.run(main)
