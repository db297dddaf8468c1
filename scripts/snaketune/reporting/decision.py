"""What the first screen says of a model and scenario: which technique, how sure, at what cost, what to ship."""

from typing import Any

from snaketune.core import paths
from snaketune.core.precisions import backend_of
from snaketune.core.tables import Row
from snaketune.reporting.numbers import measured, mib
from snaketune.reporting.result_table import NONE
from snaketune.reporting.results import UNTUNED

Rows = list[Row]


def named(technique: str) -> str:
    return "untuned" if technique == UNTUNED else technique


def headline(comparison: Row) -> str:
    if comparison["too_few"]:
        return "Not decided"
    return comparison["recommended"] or "No difference shown"


def reason(comparison: Row) -> str:
    """Return why it is recommended; without another technique, no other is beaten."""
    if comparison["recommended"] and len(comparison["seeds_of"]) == 1:
        return "it beats the untuned model by a paired interval that excludes zero"
    return str(comparison["reason"])


def run_of(comparison: Row, technique: str) -> str:
    """Return the directory of a technique's first run, as commands take it."""
    seed = comparison["seeds_of"][technique][0]
    return f"results/{paths.run_path(comparison['model'], comparison['scenario'], technique, seed)}"


def scope(comparison: Row) -> str:
    """Return what the claim is about."""
    seeds = comparison["seeds"]
    if comparison["claim"] == "artifact":
        return f"One seed ({seeds[0]}): this is a claim about the trained models, on rows like the test rows. It can't tell which technique is better."
    return f"Seeds {', '.join(map(str, seeds))}: this is a claim about techniques; variation between seeds counts as noise."


def caveats(comparison: Row) -> list[str]:
    """Return what a reader must know before relying on the recommendation, as sentences."""
    if comparison["too_few"]:
        return [f"{comparison['n']} test rows are too few: a verdict needs at least 20."]
    found = [scope(comparison)]
    if worse := comparison["not_better_than_base"]:
        found.append(f"Not shown to be better than the untuned model: {', '.join(worse)}.")
    return [*found, on_validation(comparison)]


def on_validation(comparison: Row) -> str:
    """Return what one would have chosen without a look at the test rows, and how that compares."""
    chosen, recommended = comparison["chosen_on_validation"], comparison["recommended"]
    told = f"Validation loss alone, without the test rows, chooses {chosen['technique']}"
    if chosen["technique"] == recommended:
        return f"{told}, too."
    equal = chosen["technique"] in comparison["equals"]
    if recommended and equal and chosen["better_than_base"]:
        return f"{told}: no difference is shown between it and {recommended}, which is recommended for its cost."
    result = "better" if chosen["better_than_base"] else "not shown to be better"
    return f"{told}: on the test rows it is {result} than the untuned model{', but worse than the best' if recommended and not equal else ''}."


def would_decide(comparison: Row) -> list[str]:
    """Return what would settle the open comparisons."""
    found = []
    for by, what in (("seeds", "More seeds"), ("rows", "Only more test rows")):
        if pairs := comparison["undecided"][by]:
            names = ", ".join(f"{named(a)} and {named(b)}" for a, b in pairs)
            of_them = f" ({names})" if len(pairs) <= 10 else ""
            several = "s" if len(pairs) > 1 else ""
            found.append(f"{what} would settle {len(pairs)} comparison{several}{of_them}")
    return found


def shipped(technique: str, choices: list[Row], rows: Rows) -> Row | None:
    """Return the export to ship of the first seed, with its figures beside those of its parent; None without exports.

    Args:
        choices: of each run, its technique, seed and the recommended precision.
        rows: of the summary, those of this model and scenario.
    """
    chosen = next((one for one in choices if one["technique"] == technique), None)
    if not chosen:
        return None
    of_run = [row for row in rows if row["technique"] == technique and row["seed"] == str(chosen["seed"])]
    by_backend = {row["backend"]: row for row in of_run}
    own = by_backend.get(backend_of(chosen["choice"]["precision"] or ""), NONE)
    return {**chosen, "row": own, "parent": by_backend["torch"], "fp32": by_backend.get("onnx-fp32", NONE)}


def decision(comparison: Row, techniques: Rows, choices: list[Row], rows: Rows) -> Row:
    """Return the decision on one model and scenario in words and figures."""
    name = comparison["recommended"]
    best = next((row for row in techniques if row["technique"] == name), None)
    ship = shipped(name or UNTUNED, choices, rows) if name else None
    untuned = comparison["values"][UNTUNED]
    return {
        "headline": headline(comparison),
        "decided": bool(name) and not comparison["too_few"],
        "reason": reason(comparison),
        "caveats": caveats(comparison),
        "would_decide": would_decide(comparison),
        "best": best,
        "untuned": untuned,
        "ship": ship,
        "run": run_of(comparison, name) if name else None,
        "figures": figures(comparison, best, ship) if best else [],
    }


def figures(comparison: Row, best: Row, ship: Row | None) -> list[dict[str, Any]]:
    """Return the recommended technique's figures: a name, the value and what belongs to it."""
    gain = best["difference"]
    several = len(comparison["seeds_of"][best["technique"]]) > 1
    of = f"{measured(best['ci_low'])} to {measured(best['ci_high'])}, n = {comparison['n']}"
    ranks = best["world_size"]
    found = [
        {
            "name": comparison["metric"] + ("" if comparison["higher_is_better"] else ", lower is better"),
            "value": measured(best["value"]),
            "note": of,
        },
        {
            "name": "difference from untuned",
            "value": measured(gain.value, True),
            "note": f"{measured(gain.low, True)} to {measured(gain.high, True)}",
        },
        {
            "name": "peak memory",
            "value": f"{mib(best['peak_memory_bytes'])} MiB",
            "note": "of the training process" if ranks == 1 else "of the largest rank",
        },
        {
            "name": "training time",
            "value": "–" if best["seconds"] is None else f"{best['seconds']:,.0f} s",
            "note": "mean over seeds" if several else f"on {ranks} rank{'s' if ranks > 1 else ''}" if ranks else "",
        },
    ]
    kept = {"name": "stored weights", "value": f"{mib(best['artifact_bytes'])} MiB", "note": "adapter or model"}
    if ship and ship["row"]:
        row = ship["row"]
        change = f"{comparison['metric']} {measured(row['value'])}; before export {measured(ship['parent']['value'])}"
        kept = {
            "name": f"shipped as {ship['choice']['precision']}",
            "value": f"{mib(row['artifact_bytes'])} MiB",
            "note": change,
        }
    return [*found, kept]
