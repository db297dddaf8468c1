"""Write one self-contained HTML page: the published table, then quality, cost, parity and data of each scenario."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import jinja2
from markupsafe import Markup

from snaketune.config.claims import differs_from, shown
from snaketune.core import errors, files, paths, tables
from snaketune.reporting.difference import difference
from snaketune.reporting.numbers import FILTERS, MIB
from snaketune.reporting.plots import against, colours, differences, loss_curves
from snaketune.reporting.recommend_precision import recommended
from snaketune.reporting.summary import HOSTED

Rows = list[dict[str, Any]]
STATES = ("weight", "gradient", "optimizer")


def known(of: Callable[[list[float]], float], values: list[Any]) -> float | None:
    """A figure of values, or None where one of them, or all, wasn't measured."""
    return of(values) if values and None not in values else None


def cost(resources: Rows, rows: Rows) -> dict[str, Any]:
    """Over a technique's seeds: the costliest in memory, the mean of times."""
    ranks = [rank for one in resources for rank in one["ranks"]]
    return {
        **{name: resources[0][name] for name in ("trainable_parameters", "total_parameters", "world_size")},
        "peak_memory_bytes": known(max, [one["peak_memory_bytes"] for one in resources]),
        # A platform that trains elsewhere tells nothing of its ranks.
        "peak_increase": known(max, [rank["peak_memory_bytes"] - rank["imported_memory_bytes"] for rank in ranks]),
        "state": {kind: known(max, [rank[f"{kind}_bytes"] for rank in ranks]) for kind in STATES},
        "seconds": known(mean, [one["seconds"] for one in resources]),
        "tokens_per_second": known(mean, [one["tokens_per_second"] for one in resources]),
        "artifact_bytes": float(rows[0]["artifact_bytes"]),
    }


def pairs(comparison: dict[str, Any]) -> Rows:
    """Return every comparison of two techniques with its verdict, which names the better one."""
    found = []
    for pair in comparison["pairs"]:
        verdict = difference(comparison, pair["a"], pair["b"]).verdict
        if winner := {"better": pair["a"], "worse": pair["b"]}.get(verdict):
            verdict = f"{'untuned' if winner == 'base' else winner} is better"
        found.append({**pair, "verdict": verdict})
    return found


def section(comparison: dict[str, Any], rows: Rows, results: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of one model and scenario."""
    model, scenario = comparison["model"], comparison["scenario"]
    # A service may have a model of the same name.
    mine = [r for r in rows if (r["model"], r["scenario"]) == (model, scenario) and r["backend"] != HOSTED]
    torch_rows = [row for row in mine if row["backend"] == "torch"]
    colour = colours(list(recipe["techniques"]))
    runs = {(row["technique"], row["seed"]): results / paths.RUN.format(**row) for row in torch_rows}
    found, curves = [], {}
    hardware: dict[str, Any] = {}
    for name in dict.fromkeys(row["technique"] for row in torch_rows if row["technique"] != "base"):
        own = [row for row in torch_rows if row["technique"] == name]
        resources = [files.read_json(runs[name, row["seed"]] / "resources.json") for row in own]
        curves[name] = files.read_jsonl(runs[name, own[0]["seed"]] / "train.jsonl")
        hardware = hardware if hardware and not resources[0]["ranks"] else resources[0]["hardware"]
        found.append(
            {
                "technique": name,
                "colour": colour[name],
                "seeds": [(row["seed"], row["value"]) for row in own],
                **comparison["values"][name],
                "difference": difference(comparison, name, "base"),
                **cost(resources, own),
            }
        )
    metric, untuned = comparison["metric"], comparison["values"]["base"]["value"]
    log = metric == "perplexity"
    axes = (
        ("peak_memory_bytes", "peak memory of the largest rank (MiB)", MIB),
        ("seconds", "training time (s)", 1),
        ("artifact_bytes", "size of adapter or weights (MiB)", MIB),
    )
    pretraining = results / paths.MODEL.format(model=model) / "pretraining.json"
    return {
        "comparison": comparison,
        "description": recipe["models"][model],
        "card": {
            **recipe["cards"][scenario],
            **files.read_json(results / paths.DATA.format(scenario=scenario) / "card.json"),
        },
        "pretraining": files.read_json(pretraining) if pretraining.exists() else None,
        "untuned_bytes": next(row["artifact_bytes"] for row in torch_rows if row["technique"] == "base"),
        "techniques": found,
        "elsewhere": [row["technique"] for row in found if "platform" in recipe["techniques"][row["technique"]]],
        "pairs": pairs(comparison),
        "backends": mine if any(recipe["precisions"].values()) else [],
        "parity": [
            (*key, files.read_json(run / "parity.json")) for key, run in runs.items() if recipe["precisions"][key[0]]
        ],
        "speed": [
            (*key, speed(run, recipe["precisions"][key[0]]))
            for key, run in runs.items()
            if (run / "benchmark.json").is_file() and recipe["benchmarked"]
        ],
        "hardware": hardware,
        "curves": loss_curves(curves, colour),
        "differences": differences(found, metric, comparison["higher_is_better"]),
        "plots": [
            against([row for row in found if row[column] is not None], column, label, scale, metric, untuned, log)
            for column, label, scale in axes
        ],
    }


def speed(run: Path, precisions: list[str]) -> dict[str, Any]:
    """The benchmark of a run, and the precision that follows from it and from its parity."""
    benchmark = files.read_json(run / "benchmark.json")
    choice = recommended(precisions, files.read_json(run / "parity.json"), benchmark)
    return {"benchmark": benchmark, "choice": choice}


def render(template: str, table: dict[str, Any], sections: Rows, hosted: Rows, recipe: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {**FILTERS, "svg": Markup, "shown": shown, "differs_from": differs_from}
    return environment.from_string(template).render(table=table, sections=sections, hosted=hosted, recipe=recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    results = arguments.results

    rows = tables.read(results / "summary.csv")
    sections = [
        section(found, rows, results, arguments.recipe) for found in files.read_json(results / "comparisons.json")
    ]
    table = files.read_json(results / "technique_table.json")
    template = arguments.template.read_text(encoding="utf-8")
    hosted = [row for row in rows if row["backend"] == HOSTED]
    files.write_text(arguments.output, render(template, table, sections, hosted, arguments.recipe))
    for part in sections:
        found = part["comparison"]
        print(
            f"{found['model']} {found['scenario']}: recommended {found['recommended'] or 'none'}: {found['reason']}; chosen on validation: {found['chosen_on_validation']['technique']}"
        )


if __name__ == "__main__":
    errors.run(main)
