"""Write one self-contained HTML page: recommendation, quality against cost, parity, data."""

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup

from snaketune import errors, files

matplotlib.use("svg")
import matplotlib.pyplot as plt

MIB = 2**20
Rows = list[dict[str, Any]]


def svg(figure: Any) -> str:
    """A figure as inline SVG; equal data gives equal bytes."""
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "snaketune"}):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def smoothed(values: list[float], window: int) -> list[float]:
    return [
        sum(values[max(0, i - window) : i + 1]) / len(values[max(0, i - window) : i + 1]) for i in range(len(values))
    ]


def loss_curves(curves: dict[str, Rows], colors: dict[str, Any]) -> str:
    """Training loss (running mean) and validation loss (dots) against tokens seen."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for name, entries in curves.items():
        tokens = [entry["tokens"] / 1000 for entry in entries]
        axes.plot(
            tokens,
            smoothed([entry["loss"] for entry in entries], max(1, len(entries) // 20)),
            color=colors[name],
            label=name,
            linewidth=1.4,
        )
        dots = [(entry["tokens"] / 1000, entry["validation_loss"]) for entry in entries if "validation_loss" in entry]
        axes.plot(*zip(*dots, strict=True), "o", color=colors[name], markersize=4)
    axes.set(xlabel="training tokens (thousands)", ylabel="loss per answer token (nats)", yscale="log")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return svg(figure)


def against(
    rows: Rows,
    column: str,
    label: str,
    scale: float,
    metric: str,
    colors: dict[str, Any],
    untuned: dict[str, Any] | None,
) -> str:
    """Quality with its interval against a cost, one point a run."""
    figure, axes = plt.subplots(figsize=(4.6, 3.6))
    for row in rows:
        value, low, high = (float(row[name]) for name in ("value", "ci_low", "ci_high"))
        cost = float(row[column]) / scale
        axes.errorbar(
            cost, value, yerr=[[value - low], [high - value]], fmt="o", color=colors[row["technique"]], capsize=3
        )
        axes.annotate(row["technique"], (cost, value), xytext=(5, 4), textcoords="offset points", fontsize=7)
    if untuned:
        axes.axhline(float(untuned["value"]), color="gray", linestyle="--", linewidth=1)
        axes.annotate(
            "untuned",
            (1, float(untuned["value"])),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
            color="gray",
        )
    axes.set(xlabel=label, ylabel=metric)
    axes.margins(x=0.2)
    axes.grid(alpha=0.25)
    return svg(figure)


def gains(rows: Rows, metric: str, colors: dict[str, Any]) -> str:
    """Each technique's difference from the untuned model, with its paired interval."""
    figure, axes = plt.subplots(figsize=(8, 0.5 + 0.35 * len(rows)))
    for position, row in enumerate(reversed(rows)):
        delta, low, high = (float(row[name]) for name in ("delta", "delta_ci_low", "delta_ci_high"))
        axes.errorbar(
            delta, position, xerr=[[delta - low], [high - delta]], fmt="o", color=colors[row["technique"]], capsize=3
        )
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['technique']} (seed {row['seed']})" for row in reversed(rows)])
    axes.set(xlabel=f"difference in {metric} from the untuned model")
    axes.grid(alpha=0.25, axis="x")
    return svg(figure)


def section(
    model: str, scenario: str, rows: Rows, comparison: dict[str, Any], results: Path, recipe: dict[str, Any]
) -> dict[str, Any]:
    """What the template shows of one model and scenario."""
    mine = [row for row in rows if (row["model"], row["scenario"]) == (model, scenario)]
    torch_rows = [row for row in mine if row["backend"] == "torch"]
    trained = [row for row in torch_rows if row["technique"] != "base"]
    untuned = next(row for row in torch_rows if row["technique"] == "base")
    colors = dict(
        zip(dict.fromkeys(row["technique"] for row in trained), matplotlib.color_sequences["tab10"] * 3, strict=False)
    )
    runs = {
        (row["technique"], row["seed"]): results / "runs" / model / scenario / row["technique"] / f"seed-{row['seed']}"
        for row in torch_rows
    }
    resources = {key: files.read_json(run / "resources.json") for key, run in runs.items() if key[0] != "base"}
    for row in trained:
        ranks = resources[row["technique"], row["seed"]]["ranks"]
        row["state"] = {
            kind: max(rank[f"{kind}_bytes"] for rank in ranks) for kind in ("weight", "gradient", "optimizer")
        }
        row["peak_increase"] = max(rank["peak_memory_bytes"] - rank["imported_memory_bytes"] for rank in ranks)
    first_seed = {row["technique"]: runs[row["technique"], row["seed"]] for row in reversed(trained)}
    curves = {name: files.read_jsonl(run / "train.jsonl") for name, run in reversed(first_seed.items())}
    metric = comparison["metric"]
    pretraining = results / "models" / model / "pretraining.json"
    return {
        "model": model,
        "description": recipe["models"][model],
        "scenario": scenario,
        "card": {**recipe["cards"][scenario], **files.read_json(results / "data" / scenario / "card.json")},
        "pretraining": files.read_json(pretraining) if pretraining.exists() else None,
        "comparison": comparison,
        "untuned": untuned,
        "trained": trained,
        "backends": mine,
        "parity": [
            (row["technique"], row["seed"], files.read_json(runs[row["technique"], row["seed"]] / "parity.json"))
            for row in torch_rows
        ],
        "hardware": next(iter(resources.values()))["hardware"],
        "curves": loss_curves(curves, colors),
        "gains": gains(trained, metric, colors),
        "plots": [
            against(
                trained, "peak_memory_bytes", "peak memory of the largest rank (MiB)", MIB, metric, colors, untuned
            ),
            against(trained, "train_seconds", "training time (s)", 1, metric, colors, untuned),
            against(trained, "artifact_bytes", "size of adapter or weights (MiB)", MIB, metric, colors, untuned),
        ],
    }


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    return "–" if value in ("", None) else f"{float(value):{'+' if sign else ''},.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    results = arguments.results

    with (results / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows: Rows = list(csv.DictReader(file))
    sections = [
        section(found["model"], found["scenario"], rows, found, results, arguments.recipe)
        for found in files.read_json(results / "comparisons.json")
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number,
        "mib": lambda value: number(float(value) / MIB, 1) if value not in ("", None) else "–",
        "svg": Markup,
    }
    page = environment.from_string(arguments.template.read_text(encoding="utf-8")).render(
        sections=sections, recipe=arguments.recipe
    )
    files.write_text(arguments.output, page)
    for part in sections:
        print(
            f"{part['model']} {part['scenario']}: recommended {part['comparison']['recommended'] or 'none'}: {part['comparison']['reason']}"
        )


if __name__ == "__main__":
    errors.run(main)
