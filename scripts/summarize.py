"""One row per model, scenario, technique, seed and backend; every pair of techniques compared."""

import argparse
import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from snaketune import errors, files
from snaketune.statistics import interval

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


class Results:
    """The measured files of an experiment, by cell."""

    def __init__(self, root: Path, recipe: dict[str, Any]):
        self.root, self.recipe = root, recipe
        self.metric = {name: scenario["primary_metric"] for name, scenario in recipe["scenarios"].items()}

    def run(self, cell: list[Any]) -> Path:
        model, scenario, technique, seed = cell
        return self.root / "runs" / model / scenario / technique / f"seed-{seed}"

    def predictions(self, cell: list[Any], backend: str) -> tuple[np.ndarray, np.ndarray]:
        rows = files.read_jsonl(self.run(cell) / f"evaluation/{backend}.predictions.jsonl")
        return np.array([row["label"] for row in rows]), np.array([row["prediction"] for row in rows])

    def interval(
        self, scenario: str, labels: np.ndarray, predicted: list[np.ndarray], against: list[np.ndarray]
    ) -> tuple[float, float, float]:
        return interval(
            self.metric[scenario],
            labels,
            predicted,
            against,
            self.recipe["bootstrap_samples"],
            self.recipe["confidence"],
        )

    def row(self, cell: list[Any], backend: str) -> dict[str, Any]:
        model, scenario, technique, seed = cell
        figures = files.read_json(self.run(cell) / f"evaluation/{backend}.json")
        labels, predicted = self.predictions(cell, backend)
        value, low, high = self.interval(scenario, labels, [predicted], [])
        row = {
            "model": model,
            "scenario": scenario,
            "technique": technique,
            "seed": seed,
            "backend": backend,
            "metric": self.metric[scenario],
            "higher_is_better": str(self.recipe["scenarios"][scenario]["higher_is_better"]).lower(),
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "n": figures["n"],
            "artifact_bytes": self.artifact_bytes(cell, backend),
            "decode_tokens_per_second": figures["decode_tokens_per_second"],
            "latency_p50_ms": figures["latency_p50_ms"],
        }
        if technique != "base":
            _, untuned = self.predictions([model, scenario, "base", 0], backend)
            delta, low, high = self.interval(scenario, labels, [predicted], [untuned])
            resources = files.read_json(self.run(cell) / "resources.json")
            row |= {
                "base_value": value - delta,
                "delta": delta,
                "delta_ci_low": low,
                "delta_ci_high": high,
                "train_seconds": resources["seconds"],
            }
            row |= {
                name: resources[name]
                for name in (
                    "trainable_parameters",
                    "total_parameters",
                    "world_size",
                    "train_tokens",
                    "tokens_per_second",
                    "peak_memory_bytes",
                )
            }
        return row

    def artifact_bytes(self, cell: list[Any], backend: str) -> int:
        """What one keeps or ships: the adapter or all weights for torch, else the ONNX files."""
        run = self.run(cell)
        if backend == "torch":
            manifest = run / ("merged/manifest.json" if cell[2] == "base" else "manifest.json")
        else:
            manifest = run / f"onnx/{backend.removeprefix('onnx-')}/manifest.json"
        entries = files.read_json(manifest)["files"]
        return sum(
            entry["bytes"] for name, entry in entries.items() if name.endswith((".safetensors", ".onnx", ".onnx_data"))
        )


def compared(results: Results, model: str, scenario: str) -> dict[str, Any]:
    """Each technique against the untuned model and against each other, over its seeds, with torch."""
    cells = [cell for cell in results.recipe["cells"] if cell[:2] == [model, scenario]]
    labels, _ = results.predictions(cells[0], "torch")
    predicted = {
        name: [results.predictions(cell, "torch")[1] for cell in cells if cell[2] == name]
        for name in dict.fromkeys(cell[2] for cell in cells)
    }
    sign = 1 if results.recipe["scenarios"][scenario]["higher_is_better"] else -1
    values = {name: results.interval(scenario, labels, answers, []) for name, answers in predicted.items()}
    pairs = {
        (a, b): results.interval(scenario, labels, predicted[a], predicted[b])
        for a, b in itertools.combinations(predicted, 2)
    }

    def better(a: str, b: str) -> bool:
        """Whether a beats b by an interval that excludes zero."""
        _, low, high = pairs.get((a, b)) or [-end for end in (pairs[b, a][0], pairs[b, a][2], pairs[b, a][1])]
        return (low if sign > 0 else -high) > 0

    cost: dict[str, tuple[int, float]] = {}
    for cell in cells:
        if cell[2] != "base":
            resources = files.read_json(results.run(cell) / "resources.json")
            cost[cell[2]] = max(
                cost.get(cell[2], (0, 0.0)),
                (resources["peak_memory_bytes"] * resources["world_size"], resources["seconds"]),
            )
    gained = [name for name in predicted if name != "base" and better(name, "base")]
    result = {
        "model": model,
        "scenario": scenario,
        "metric": results.metric[scenario],
        "values": {
            name: dict(zip(("value", "ci_low", "ci_high"), found, strict=True)) for name, found in values.items()
        },
        "pairs": [
            {"a": a, "b": b, **dict(zip(("difference", "ci_low", "ci_high"), found, strict=True))}
            for (a, b), found in pairs.items()
        ],
        "not_better_than_base": [name for name in predicted if name != "base" and name not in gained],
    }
    return result | recommend(gained, {name: sign * found[0] for name, found in values.items()}, better, cost)


def recommend(
    gained: list[str], quality: dict[str, float], better: Any, cost: dict[str, tuple[int, float]]
) -> dict[str, Any]:
    """The best technique; among its equals that beat the untuned model, the one with the least memory."""
    if not gained:
        return {
            "recommended": None,
            "equals": [],
            "reason": "no difference shown: no technique beats the untuned model by an interval that excludes zero",
        }
    best = max(gained, key=lambda name: quality[name])
    equals = [name for name in quality if name == best or (name != "base" and not better(best, name))]
    chosen = min((name for name in equals if name in gained), key=lambda name: cost[name])
    if len(equals) == 1:
        return {
            "recommended": best,
            "equals": equals,
            "reason": "it beats the untuned model and every other technique, each by a paired interval that excludes zero",
        }
    return {
        "recommended": chosen,
        "equals": equals,
        "reason": f"no difference shown between {', '.join(equals)}; of these it has the smallest peak memory over its ranks ({cost[chosen][0] / 2**20:,.0f} MiB)",
    }


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
    backends = ["torch", *(f"onnx-{precision}" for precision in arguments.recipe["precisions"])]
    rows = [results.row(cell, backend) for cell in cells for backend in backends]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    tree: dict[str, Any] = {}
    for row in rows:
        branch = (
            tree.setdefault(row["model"], {})
            .setdefault(row["scenario"], {})
            .setdefault(row["technique"], {})
            .setdefault(f"seed-{row['seed']}", {})
        )
        branch[row["backend"]] = {row["metric"]: row["value"]}
    files.write_text(arguments.summary, text.getvalue())
    files.write_json(
        arguments.comparisons,
        [compared(results, *pair) for pair in dict.fromkeys((cell[0], cell[1]) for cell in cells)],
    )
    files.write_json(arguments.metrics, tree)
    for row in rows:
        print(
            f"{row['model']} {row['scenario']} {row['technique']} {row['backend']}: {row['metric']} {row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        )


if __name__ == "__main__":
    errors.run(main)
