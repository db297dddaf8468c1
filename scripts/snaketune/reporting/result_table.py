"""The results as a table for a terminal."""

from pathlib import Path

from snaketune.core import files, tables
from snaketune.reporting.numbers import measured

# Lines of a table; the rest is in summary.csv.
MOST = 24
NONE: tables.Row = {}


def lines_of(rows: list[tables.Row]) -> list[list[str]]:
    """Return the cells of one model and scenario's table: a line per technique and seed, a column per backend."""
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    seeds = {row["seed"] for row in rows if row["technique"] != "base"}
    lines = [["technique", *backends, "gain", "trained in"]]
    for technique, seed in dict.fromkeys((row["technique"], row["seed"]) for row in rows):
        own = {row["backend"]: row for row in rows if (row["technique"], row["seed"]) == (technique, seed)}
        first = own.get("torch") or next(iter(own.values()))
        name = "untuned" if technique == "base" else technique + (f" (seed {seed})" if len(seeds) > 1 else "")
        figures = [measured(own.get(backend, NONE).get("value")) for backend in backends]
        seconds = first["train_seconds"]
        trained = f"{float(seconds):,.0f} s" if seconds else "–"
        lines.append([name, *figures, measured(first["delta"], sign=True), trained])
    return lines


def results_table(results: Path) -> str:
    """Return the quality of every model, by scenario, and which technique is recommended."""
    rows = tables.read(results / "summary.csv")
    shown = []
    recommended = {(one["model"], one["scenario"]): one for one in files.read_json(results / "comparisons.json")}
    for model, scenario in dict.fromkeys((row["model"], row["scenario"]) for row in rows):
        own = [row for row in rows if (row["model"], row["scenario"]) == (model, scenario)]
        shown.append(f"{model} on {scenario}: {own[0]['metric']}")
        lines = lines_of(own)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines[: MOST + 1]:
            cells = [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
            shown.append("  " + "  ".join(cells))
        if len(lines) > MOST + 1:
            shown.append(f"  … and {len(lines) - MOST - 1} more in {results / 'summary.csv'}")
        if found := recommended.get((model, scenario)):
            shown.append(f"  recommended: {found['recommended'] or 'none'}")
    return "\n".join(shown)
