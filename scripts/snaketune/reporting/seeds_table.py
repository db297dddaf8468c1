"""A scenario's techniques over seeds as a Markdown table: quality, gain, exports' loss and costs."""

from statistics import mean
from typing import Any

from snaketune.core.paths import Cell
from snaketune.reporting.comparison import compare
from snaketune.reporting.difference import difference
from snaketune.reporting.numbers import measured, mib, number
from snaketune.reporting.results import UNTUNED, Results
from snaketune.reporting.summary import local_row

COSTS = ("trainable_parameters", "peak_memory_bytes", "train_seconds")
HEADS = ("parameters trained", "peak MiB of a rank", "minutes", "kept MiB")
# Of each run, the backends that it was evaluated with.
Runs = dict[Cell, list[str]]


def of_scenario(results: Results, model: str, scenario: str, runs: Runs) -> str:
    """Return a line per technique of the runs that are there, and below it what the figures are of."""
    trained = list(dict.fromkeys(cell[2] for cell in runs if cell[2] != UNTUNED))
    if not trained or not any(cell[2] == UNTUNED for cell in runs):
        lacking = "a technique" if not trained else "the untuned model"
        return f"{model} on `{scenario}`: without {lacking} there is nothing to compare."
    found = compare(results, model, scenario)
    exports = list(dict.fromkeys(name for backends in runs.values() for name in backends if name != "torch"))
    heads = ["technique", "seeds", found["metric"], "gain over untuned", *(f"{one} − torch" for one in exports), *HEADS]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for technique in (UNTUNED, *trained):
        own = {cell: backends for cell, backends in runs.items() if cell[2] == technique}
        lines.append(f"| {' | '.join(_line(results, found, technique, own, exports))} |")
    return "\n".join([*lines, "", _caption(results, found)])


def _line(results: Results, found: dict[str, Any], technique: str, runs: Runs, exports: list[str]) -> list[str]:
    """Return a technique's cells: costs are means over seeds, exports those of the first run that has them."""
    rows = {(cell, name): local_row(results, list(cell), name) for cell, names in runs.items() for name in names}
    torch = [rows[cell, "torch"] for cell in runs]
    losses = {name: row["value"] - rows[cell, "torch"]["value"] for (cell, name), row in reversed(rows.items())}
    lost = [measured(losses.get(name), sign=True) for name in exports]
    value = found["values"][technique]
    quality = f"{measured(value['value'])} [{measured(value['ci_low'])}, {measured(value['ci_high'])}]"
    kept = mib(torch[0]["artifact_bytes"])
    if technique == UNTUNED:
        return ["untuned", "–", quality, "–", *lost, "–", "–", "–", kept]
    gain = difference(found, technique, UNTUNED)
    gained = f"{measured(gain.value, True)} [{measured(gain.low, True)}, {measured(gain.high, True)}]"
    parameters, peak, seconds = (mean(row[key] for row in torch) for key in COSTS)
    costs = [number(parameters, 0), mib(peak), number(seconds / 60, 1), kept]
    return [f"`{technique}`", str(len(runs)), quality, gained, *lost, *costs]


def _caption(results: Results, found: dict[str, Any]) -> str:
    claim = "over rows and seeds" if found["claim"] == "technique" else "over rows, of the models of one seed"
    told = [
        f"{found['model']} on `{found['scenario']}`, {found['n']} test rows; {100 * results.confidence:g} % intervals {claim}; those of gains hold for all pairs simultaneously. Times were measured on {'; '.join(found['devices'])}."
    ]
    pairs = [pair for pair in found["pairs"] if UNTUNED not in (pair["a"], pair["b"])]
    if halves := sorted((pair["ci_high"] - pair["ci_low"]) / 2 for pair in pairs):
        middle = halves[len(halves) // 2]
        told.append(
            f"The smallest detectable difference between two techniques is half the width of their interval: {measured(middle)} for the median pair, {measured(halves[0])} to {measured(halves[-1])} over all pairs."
        )
    told.append(f"Recommended: {found['recommended'] or 'none'} – {found['reason']}.")
    return " ".join(told)
