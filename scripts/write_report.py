"""Write one self-contained HTML page: the published table, then quality, cost, parity and data of each scenario."""

from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from snaketune.core import cli, errors, files, paths, tables
from snaketune.core.precisions import backend_of
from snaketune.core.tables import Row
from snaketune.reporting.difference import artifact, difference
from snaketune.reporting.numbers import MIB
from snaketune.reporting.params import ReportParams
from snaketune.reporting.plots import colours, differences, loss_curves, quality_against_cost
from snaketune.reporting.recommend_precision import recommend_precision
from snaketune.reporting.recommend_technique import OF
from snaketune.reporting.results import STATES
from snaketune.reporting.summary import HOSTED
from snaketune.reporting.templates import render

Rows = list[Row]


def over_seeds(aggregate: Callable[[list[float]], float], values: list[Any]) -> float | None:
    """Aggregate figures; None if one of them, or every one, was not measured."""
    return aggregate(values) if values and None not in values else None


def cost(resources: Rows, artifact_bytes: str) -> Row:
    """Return what a technique cost over its seeds: the largest memory and the mean of times."""
    # A platform reports nothing about its ranks.
    ranks = [rank for one in resources for rank in one["ranks"]]
    increases = [rank["peak_memory_bytes"] - rank["imported_memory_bytes"] for rank in ranks]
    return {
        **{name: resources[0][name] for name in ("trainable_parameters", "total_parameters", "world_size", "hardware")},
        "peak_memory_bytes": over_seeds(max, [one["peak_memory_bytes"] for one in resources]),
        "peak_increase": over_seeds(max, increases),
        "state": {kind: over_seeds(max, [rank[f"{kind}_bytes"] for rank in ranks]) for kind in STATES},
        "seconds": over_seeds(mean, [one["seconds"] for one in resources]),
        "tokens_per_second": over_seeds(mean, [one["tokens_per_second"] for one in resources]),
        "artifact_bytes": float(artifact_bytes),
    }


def techniques(comparison: Row, rows: Rows, results: Path, recipe: ReportParams) -> Rows:
    """Return each technique's quality, difference from the untuned model and cost, over its seeds."""
    colour = colours(list(recipe["techniques"]))
    found = []
    for name in dict.fromkeys(row["technique"] for row in rows if row["technique"] != "base"):
        own = [row for row in rows if row["technique"] == name]
        runs = [run_of(results, row) for row in own]
        found.append(
            {
                "technique": name,
                "colour": colour[name],
                "elsewhere": "platform" in recipe["techniques"][name],
                "seeds": [(row["seed"], row["value"]) for row in own],
                "curve": files.read_jsonl(runs[0] / "train.jsonl"),
                "difference": difference(comparison, name, "base"),
                **comparison["values"][name],
                **cost([files.read_json(run / "resources.json") for run in runs], own[0]["artifact_bytes"]),
            }
        )
    return found


def run_of(results: Path, row: Row) -> Path:
    return results / paths.RUN.format(**row)


def exports(rows: Rows, results: Path, recipe: ReportParams) -> Row:
    """Return the parity figures and the benchmark of each run, with its technique and seed."""
    found: Row = {"parity": [], "speed": []}
    for row in rows:
        run, precisions = run_of(results, row), recipe["precisions"][row["technique"]]
        if not precisions:
            continue
        parity, of = files.read_json(run / "parity.json"), (row["technique"], row["seed"])
        found["parity"].append((*of, parity))
        if recipe["benchmarked"] and (run / "benchmark.json").is_file():
            benchmark = files.read_json(run / "benchmark.json")
            # An adapter beside its base isn't timed.
            timed = [name for name in precisions if backend_of(name) in benchmark["systems"]]
            choice = recommend_precision(timed, parity, benchmark)
            found["speed"].append((*of, {"benchmark": benchmark, "choice": choice}))
    return found


def pairs(comparison: Row) -> Rows:
    """Return every comparison of two techniques with its verdict, which names the better one."""
    found = []
    for pair in comparison["pairs"]:
        verdict = difference(comparison, pair["a"], pair["b"]).verdict
        if winner := {"better": pair["a"], "worse": pair["b"]}.get(verdict):
            verdict = f"{'untuned' if winner == 'base' else winner} is better"
        found.append({**pair, "verdict": verdict})
    return found


def plots(comparison: Row, found: Rows) -> Row:
    """Return the figures of one model and scenario as SVG."""
    metric, untuned = comparison["metric"], comparison["values"]["base"]["value"]
    costs = (
        ("peak_memory_bytes", "peak memory of the largest rank (MiB)", MIB),
        ("seconds", "training time (s)", 1),
        ("artifact_bytes", "size of adapter or weights (MiB)", MIB),
    )
    return {
        "curves": loss_curves(found),
        "differences": differences(found, metric, comparison["higher_is_better"]),
        "plots": [
            quality_against_cost(
                [row for row in found if row[column] is not None], column, label, scale, metric, untuned
            )
            for column, label, scale in costs
        ],
    }


def section(comparison: Row, rows: Rows, results: Path, recipe: ReportParams) -> Row:
    """Return what the template shows of one model and scenario."""
    model, scenario = comparison["model"], comparison["scenario"]
    # A service may have a model of the same name.
    mine = [r for r in rows if (r["model"], r["scenario"]) == (model, scenario) and r["backend"] != HOSTED]
    torch_rows = [row for row in mine if row["backend"] == "torch"]
    found = techniques(comparison, torch_rows, results, recipe)
    models = [(one["technique"], one["seed"]) for one in comparison["artifacts"]]
    better = [f"{name} (seed {seed})" for name, seed in models if artifact(comparison, name, seed).verdict == "better"]
    pretraining = results / paths.MODEL.format(model=model) / "pretraining.json"
    return {
        "comparison": comparison,
        "description": recipe["models"][model],
        "card": recipe["cards"][scenario]
        | files.read_json(results / paths.DATA.format(scenario=scenario) / "card.json"),
        "pretraining": files.read_json(pretraining) if pretraining.exists() else None,
        "untuned_bytes": next(row["artifact_bytes"] for row in torch_rows if row["technique"] == "base"),
        "techniques": found,
        "elsewhere": [row["technique"] for row in found if row["elsewhere"]],
        "hardware": ([row for row in found if not row["elsewhere"]] or found)[-1]["hardware"],
        "pairs": pairs(comparison),
        "better_models": better,
        "backends": mine if any(recipe["precisions"].values()) else [],
        **exports(torch_rows, results, recipe),
        **plots(comparison, found),
    }


def main() -> None:
    arguments = cli.job_parser(__doc__, ReportParams, "--results --template --output").parse_args()
    results = arguments.results

    rows = tables.read(results / "summary.csv")
    comparisons = files.read_json(results / "comparisons.json")
    content = {
        "table": files.read_json(results / "technique_table.json"),
        "sections": [section(found, rows, results, arguments.recipe) for found in comparisons],
        "hosted": [row for row in rows if row["backend"] == HOSTED],
        "recipe": arguments.recipe,
    }
    files.write_text(arguments.output, render(arguments.template.read_text(encoding="utf-8"), True, content))
    for found in comparisons:
        print(
            f"{found['model']} {found['scenario']}: recommended of the {OF[found['claim']]}s: {found['recommended'] or 'none'}: {found['reason']}; chosen on validation: {found['chosen_on_validation']['technique']}"
        )


if __name__ == "__main__":
    errors.run(main)
