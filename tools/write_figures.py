"""Write what a finished run measured into the pages that show it, between their markers."""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import files, tables
from snaketune.core.errors import UserError, run
from snaketune.reporting.numbers import MIB

Rows = list[tables.Row]
PAGES = [Path("README.md"), Path("docs/results.md")]
STEPS = {
    "pre-training the base model": ("collect_documentation", "train_tokenizer", "pretrain_model"),
    "preparing the data": ("prepare_data", "tokenize_data"),
    "training the techniques": ("train",),
    "merging and exporting": ("merge", "extract_prefix", "export"),
    "evaluating and comparing": ("evaluate", "check_parity", "summarize", "write_report"),
}


def quality(rows: Rows, confidence: float) -> str:
    """Return a table with a line per technique: quality with its interval, cost, and the quality of each export."""
    lines = [
        "| technique | torch | gain over untuned | ONNX fp32 | int8 | int4 | parameters trained | peak MiB of a rank | kept file MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cells = dict.fromkeys((row["model"], row["scenario"], row["technique"], row["seed"]) for row in rows)
    for cell in cells:
        of = {
            row["backend"]: row
            for row in rows
            if (row["model"], row["scenario"], row["technique"], row["seed"]) == cell
        }
        torch = of["torch"]
        exports = " | ".join(f"{float(of[f'onnx-{precision}']['value']):.3f}" for precision in ("fp32", "int8", "int4"))
        gain = (
            f"{float(torch['delta']):+.3f} [{float(torch['delta_ci_low']):+.3f}, {float(torch['delta_ci_high']):+.3f}]"
            if torch["delta"]
            else "–"
        )
        trained = f"{int(torch['trainable_parameters']):,}" if torch["trainable_parameters"] else "–"
        peak = f"{float(torch['peak_memory_bytes']) / MIB:,.0f}" if torch["peak_memory_bytes"] else "–"
        name = "untuned" if torch["technique"] == "base" else f"`{torch['technique']}`"
        lines.append(
            f"| {name} | {float(torch['value']):.3f} | {gain} | {exports} | {trained} | {peak} | {int(torch['artifact_bytes']) / MIB:.2f} |"
        )
    lines.append(
        f"\nMetric: {rows[0]['metric']}, n = {rows[0]['n']} test rows, seed {max(int(row['seed']) for row in rows)}, {100 * confidence:g} % paired bootstrap intervals over test rows."
    )
    return "\n".join(lines)


def shares(benchmarks: Path, rows: Rows) -> str:
    """Return a table of each step's share of the time of all jobs of these rows' experiment.

    Their processor time isn't summed: it is sampled twice a minute, so that of 35 seconds 15 may be counted.
    """
    spent: dict[str, float] = defaultdict(float)
    names = {row[key] for row in rows for key in ("model", "scenario", "technique", "backend")}
    names |= {f"seed-{row['seed']}" for row in rows} | {row["backend"].removeprefix("onnx-") for row in rows}
    # An export is of a run or, if untuned, of a model.
    names |= {"runs", "models"}
    for path in benchmarks.rglob("*.tsv"):
        kind, *cell = path.relative_to(benchmarks).with_suffix("").parts
        if not names.issuperset(cell):
            continue
        step = next((name for name, kinds in STEPS.items() if kind in kinds), None)
        if step:
            spent[step] += sum(float(row["s"]) for row in tables.read(path, "\t"))
    if not spent:
        raise UserError(f"{benchmarks}: no benchmark of a finished run: run `make demo` first")
    total = sum(spent.values())
    return "\n".join(
        [
            "| step | share of the time of all jobs |",
            "|---|---|",
            *(f"| {step} | {100 * spent[step] / total:.0f} % |" for step in STEPS),
        ]
    )


def replace_between(text: str, name: str, table: str) -> str:
    """Return ``text`` with the table between its markers, or as it is if it lacks them."""
    before, start, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    return f"{before}{start}{table}\n{end}{after}" if start and end else text


def write(pages: list[Path], figures: dict[str, str]) -> None:
    """Write each figure into the pages that have its markers, and name those that no page shows.

    Raises:
        UserError: no page shows any of them.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    shown = [name for name in figures if any(f"<!-- /{name} -->" in text for text in texts.values())]
    if figures and not shown:
        name = next(iter(figures))
        raise UserError(
            f"{', '.join(map(str, pages))}: none has the lines <!-- {name} --> and <!-- /{name} -->: add them where the table belongs"
        )
    for page, text in texts.items():
        for name in shown:
            text = replace_between(text, name, figures[name])
        files.write_text(page, text)
    others = sorted(figures.keys() - set(shown))
    print(f"written: {', '.join(shown) or 'nothing'}" + (f"; no page shows {', '.join(others)}" if others else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", type=Path, default=Path("results/summary.csv"))
    parser.add_argument("--table", type=Path, default=Path("results/technique_table.json"))
    parser.add_argument("--benchmarks", type=Path, default=Path("logs/benchmarks"))
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES)
    arguments = parser.parse_args()
    if not arguments.summary.exists():
        raise UserError(f"{arguments.summary}: no finished run: run `make demo` first")
    rows, confidence = tables.read(arguments.summary), files.read_json(arguments.table)["confidence"]
    figures: dict[str, str] = {}
    exported = {"onnx-fp32", "onnx-int8", "onnx-int4"} <= {row["backend"] for row in rows}
    seeds = {row["seed"] for row in rows if row["technique"] != "base"}
    if exported and len({(row["model"], row["scenario"]) for row in rows}) == len(seeds) == 1:
        model = rows[0]["model"]
        figures |= {f"quality-{model}": quality(rows, confidence)}
        figures |= {f"shares-{model}": shares(arguments.benchmarks, rows)}
    write(arguments.pages, figures)


if __name__ == "__main__":
    run(main)
