"""What the report shows of one model and scenario."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from snaketune.core import files, paths
from snaketune.core.precisions import backend_of
from snaketune.core.tables import Row
from snaketune.reporting.answers import side_by_side
from snaketune.reporting.comparison import ONE_SEED
from snaketune.reporting.cost_plot import cost_rows, quality_against_cost
from snaketune.reporting.decision import decision
from snaketune.reporting.difference import NOT_SHOWN, artifact, difference
from snaketune.reporting.params import ReportParams
from snaketune.reporting.plots import colours, confusion, differences, loss_curves
from snaketune.reporting.recommend_precision import recommend_precision, smallest_precision
from snaketune.reporting.results import STATES, UNTUNED
from snaketune.reporting.summary import HOSTED

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


def run_of(results: Path, row: Row) -> Path:
    return results / paths.RUN.format(**row)


def techniques(comparison: Row, rows: Rows, results: Path, recipe: ReportParams) -> Rows:
    """Return each technique's quality, difference from the untuned model and cost, over its seeds."""
    colour = colours(list(recipe["techniques"]))
    found = []
    for name in dict.fromkeys(row["technique"] for row in rows if row["technique"] != UNTUNED):
        own = [row for row in rows if row["technique"] == name]
        runs = [run_of(results, row) for row in own]
        curves = [(row["seed"], files.read_jsonl(run / "train.jsonl")) for row, run in zip(own, runs, strict=True)]
        found.append(
            {
                "technique": name,
                "colour": colour[name],
                "elsewhere": "platform" in recipe["techniques"][name],
                "seeds": [(row["seed"], row["value"]) for row in own],
                "curves": curves,
                "difference": difference(comparison, name, UNTUNED),
                **comparison["values"][name],
                **cost([files.read_json(run / "resources.json") for run in runs], own[0]["artifact_bytes"]),
            }
        )
    return found


def exports(torch_rows: Rows, mine: Rows, results: Path, recipe: ReportParams) -> Rows:
    """Return of each run its parity figures, its benchmark if there is one, and the precision to ship."""
    found = []
    for row in torch_rows:
        run, precisions = run_of(results, row), recipe["precisions"][row["technique"]]
        if not precisions:
            continue
        parity = files.read_json(run / "parity.json")
        one = {"technique": row["technique"], "seed": row["seed"], "parity": parity, "benchmark": None}
        if recipe["benchmarked"] and (run / "benchmark.json").is_file():
            one["benchmark"] = files.read_json(run / "benchmark.json")
        # An adapter beside its base isn't timed.
        if one["benchmark"] and all(backend_of(name) in one["benchmark"]["systems"] for name in precisions):
            one["choice"] = recommend_precision(precisions, parity, one["benchmark"])
        else:
            of_run = {r["backend"]: r for r in mine if (r["technique"], r["seed"]) == (row["technique"], row["seed"])}
            size = {name: float(of_run[backend_of(name)]["artifact_bytes"]) for name in precisions}
            one["choice"] = smallest_precision(precisions, parity, size)
        cell = {name: row[name] for name in ("model", "scenario", "technique")}
        if name := one["choice"]["precision"]:
            calibrated = recipe["calibrated"]
            one["path"] = (
                f"results/{paths.export_path(**cell, seed=row['seed'], precision=name, calibrated=calibrated)}"
            )
        found.append(one)
    return found


def change_from_torch(row: Row, torch_rows: Rows) -> float | None:
    """Return an export's value minus that of the model that it was made from."""
    of = (row["technique"], row["seed"])
    parent = next(one for one in torch_rows if (one["technique"], one["seed"]) == of)
    return None if row["backend"] == "torch" else float(row["value"]) - float(parent["value"])


def pairs(comparison: Row) -> Rows:
    """Return every comparison of two techniques with its verdict, which names the better one."""
    found = []
    for pair in comparison["pairs"]:
        told = difference(comparison, pair["a"], pair["b"])
        one_seed = told.withheld == ONE_SEED
        # The models in hand are told apart, though not their techniques.
        verdict = replace(told, withheld=None).verdict if one_seed else told.verdict
        if verdict == NOT_SHOWN and pair["ci_low"] == pair["ci_high"] == 0:
            verdict = "equal on every row"
        if winner := {"better": pair["a"], "worse": pair["b"]}.get(verdict):
            verdict = f"{'untuned' if winner == UNTUNED else winner} is better"
        found.append({**pair, "verdict": verdict, "one_seed": one_seed})
    return found


def made_by(rows: Rows, results: Path) -> Rows:
    """Return of each run its recipe and hashes, and when, where and from which commit it was made, if recorded."""
    found = []
    for row in rows:
        run = run_of(results, row)
        if row["technique"] == UNTUNED:
            run = results / paths.BASE.format(**row)
        manifest, provenance = (run / name for name in ("manifest.json", "provenance.json"))
        found.append(
            {
                "technique": row["technique"],
                "seed": row["seed"],
                **files.read_json(manifest),
                "made": files.read_json(provenance) if provenance.exists() else {},
            }
        )
    return found


def plots(comparison: Row, found: Rows, card: Row) -> Row:
    """Return the figures of one model and scenario."""
    metric, untuned = comparison["metric"], comparison["values"][UNTUNED]
    return {
        "cost": quality_against_cost(found, metric, untuned, cost_rows(found)),
        "curves": loss_curves(found),
        "differences": differences(found, metric, comparison["higher_is_better"]),
        **({"confusion": confusion(card["labels"])} if card["labels"] else {}),
    }


def section(comparison: Row, rows: Rows, results: Path, recipe: ReportParams) -> Row:
    """Return what the template shows of one model and scenario."""
    model, scenario = comparison["model"], comparison["scenario"]
    # A service may have a model of the same name.
    mine = [r for r in rows if (r["model"], r["scenario"]) == (model, scenario) and r["backend"] != HOSTED]
    torch_rows = [row for row in mine if row["backend"] == "torch"]
    untuned = next(row for row in torch_rows if row["technique"] == UNTUNED)
    first_runs = {row["technique"]: run_of(results, row) for row in reversed(torch_rows) if row != untuned}
    found = techniques(comparison, torch_rows, results, recipe)
    data = results / paths.DATA.format(scenario=scenario)
    card = recipe["cards"][scenario] | files.read_json(data / "card.json")
    models = [(one["technique"], one["seed"]) for one in comparison["artifacts"]]
    better = [f"{name} (seed {seed})" for name, seed in models if artifact(comparison, name, seed).verdict == "better"]
    pretraining = results / paths.MODEL.format(model=model) / "pretraining.json"
    exported = exports(torch_rows, mine, results, recipe)
    return {
        "title": f"{scenario} with {model}",
        "comparison": comparison,
        "decision": decision(comparison, found, exported, mine),
        "description": recipe["models"][model],
        "card": card,
        "pretraining": files.read_json(pretraining) if pretraining.exists() else None,
        "untuned_bytes": untuned["artifact_bytes"],
        "techniques": found,
        "elsewhere": [row["technique"] for row in found if row["elsewhere"]],
        "hardware": ([row for row in found if not row["elsewhere"]] or found)[-1]["hardware"],
        "pairs": pairs(comparison),
        "better_models": better,
        "backends": [row | {"change": change_from_torch(row, torch_rows)} for row in mine] if exported else [],
        "exports": exported,
        "made": made_by(torch_rows, results),
        "plots": plots(comparison, found, card),
        "answers": side_by_side(
            data / "test.jsonl",
            run_of(results, untuned),
            {name: first_runs[name] for name in reversed(first_runs)},
            comparison,
        ),
    }
