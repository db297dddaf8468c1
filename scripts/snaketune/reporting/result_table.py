"""The results as a table for a terminal."""

from pathlib import Path

from snaketune.core import files, paths, tables
from snaketune.core.precisions import backend_of
from snaketune.reporting.numbers import measured
from snaketune.reporting.recommend_precision import recommend_precision, smallest_precision, within_budget

# Lines of a table; the rest is in summary.csv.
MOST = 24
NONE: tables.Row = {}


def exports_of(run: Path, rows: list[tables.Row], benchmarked: bool) -> tuple[list[str], str]:
    """Return the backends of a run that are over their parity budget, and the precision to ship, as the report does.

    Args:
        rows: of the summary, those of this run.
        benchmarked: this experiment times its exports.
    """
    size = {
        row["backend"].removeprefix("onnx-"): float(row["artifact_bytes"])
        for row in rows
        if row["backend"].startswith(("onnx-", "genai-"))
    }
    if not size or not (run / "parity.json").is_file():
        return [], ""
    precisions, parity = list(size), files.read_json(run / "parity.json")
    kept = within_budget(precisions, parity | {"without_budget": []})
    systems: tables.Row = {}
    if benchmarked and (run / "benchmark.json").is_file():
        systems = files.read_json(run / "benchmark.json")["systems"]
    if all(backend_of(name) in systems for name in precisions):
        choice = recommend_precision(precisions, parity, {"systems": systems})
    else:
        choice = smallest_precision(precisions, parity, size)
    return [backend_of(name) for name in precisions if name not in kept], choice["precision"] or ""


def recommended(comparison: tables.Row, precision: str) -> str:
    """Say which technique and precision to ship, and the interval of its gain."""
    name = comparison["recommended"]
    if comparison["too_few"] or not name:
        return f"recommended: none{', ' if comparison['too_few'] else ''}{comparison['too_few'] or ''}"
    pair = next(pair for pair in comparison["pairs"] if {pair["a"], pair["b"]} == {name, "base"})
    ends = sorted((1 if pair["a"] == name else -1) * pair[end] for end in ("ci_low", "ci_high"))
    gain = " to ".join(measured(end, sign=True) for end in ends)
    return f"recommended: {name}{f' as {precision}' if precision else ''} ({gain} from the untuned model)"


def lines_of(rows: list[tables.Row], over: dict[tuple[str, str], list[str]]) -> list[list[str]]:
    """Return the cells of one model and scenario's table: a line per technique and seed, a column per backend.

    Args:
        over: of each technique and seed, the backends to mark.
    """
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    seeds = {row["seed"] for row in rows if row["technique"] != "base"}
    lines = [["technique", *backends, "gain", "trained in"]]
    for technique, seed in dict.fromkeys((row["technique"], row["seed"]) for row in rows):
        own = {row["backend"]: row for row in rows if (row["technique"], row["seed"]) == (technique, seed)}
        first = own.get("torch") or next(iter(own.values()))
        name = "untuned" if technique == "base" else technique + (f" (seed {seed})" if len(seeds) > 1 else "")
        marks = dict.fromkeys(over[technique, seed], "!")
        figures = [measured(own.get(one, NONE).get("value")) + marks.get(one, "") for one in backends]
        seconds = first["train_seconds"]
        trained = f"{float(seconds):,.0f} s" if seconds else "–"
        lines.append([name, *figures, measured(first["delta"], sign=True), trained])
    return lines


def results_table(results: Path, benchmarked: bool = False) -> str:
    """Return the quality of every model, by scenario, and which technique and export is recommended."""
    rows = tables.read(results / "summary.csv")
    shown = []
    comparisons = {(one["model"], one["scenario"]): one for one in files.read_json(results / "comparisons.json")}
    for model, scenario in dict.fromkeys((row["model"], row["scenario"]) for row in rows):
        own = [row for row in rows if (row["model"], row["scenario"]) == (model, scenario)]
        shown.append(f"{model} on {scenario}: {own[0]['metric']}")
        runs: dict[tuple[str, str], list[tables.Row]] = {}
        for row in own:
            runs.setdefault((row["technique"], row["seed"]), []).append(row)
        exports = {
            run: exports_of(results / paths.RUN.format(**of_run[0]), of_run, benchmarked)
            for run, of_run in runs.items()
        }
        lines = lines_of(own, {run: over for run, (over, _) in exports.items()})
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines[: MOST + 1]:
            cells = [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
            shown.append("  " + "  ".join(cells))
        if len(lines) > MOST + 1:
            shown.append(f"  … and {len(lines) - MOST - 1} more in {results / 'summary.csv'}")
        if any(over for over, _ in exports.values()):
            shown.append("  !: over its parity budget")
        if found := comparisons.get((model, scenario)):
            precision = next((one for (name, _), (_, one) in exports.items() if name == found["recommended"]), "")
            shown.append(f"  {recommended(found, precision)}")
    return "\n".join(shown)
