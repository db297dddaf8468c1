"""Write the measured tables of README.md, between its markers, from a finished default run."""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.errors import UserError, run

MIB = 2**20
STEPS = {
    "pre-training the base model": ("collect_documentation", "train_tokenizer", "pretrain_model"),
    "preparing the data": ("prepare_data", "tokenize_data"),
    "training the techniques": ("train",),
    "merging and exporting": ("merge", "export"),
    "evaluating and comparing": ("evaluate", "check_parity", "summarize", "write_report"),
}


def read_rows(path: Path, delimiter: str = ",") -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def quality(rows: list[dict[str, Any]]) -> str:
    """One line a technique: quality with its interval, cost, and what each export keeps."""
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
        f"\nMetric: {rows[0]['metric']}, n = {rows[0]['n']} test rows, seed {max(int(row['seed']) for row in rows)}, 95 % paired bootstrap intervals."
    )
    return "\n".join(lines)


def shares(benchmarks: Path) -> str:
    """Each step's share of the core time (time × cores held) of all jobs."""
    spent: dict[str, float] = defaultdict(float)
    for path in benchmarks.rglob("*.tsv"):
        kind = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        step = next((name for name, kinds in STEPS.items() if kind in kinds), None)
        if step:
            spent[step] += sum(
                float(row["cpu_time"]) for row in read_rows(path, "\t") if row["cpu_time"] not in ("NA", "-")
            )
    if not spent:
        raise UserError(f"{benchmarks}: no benchmark of a finished run; run `make demo` first")
    total = sum(spent.values())
    return "\n".join(
        [
            "| step | share of the processor time |",
            "|---|---|",
            *(f"| {step} | {100 * spent[step] / total:.0f} % |" for step in STEPS),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", type=Path, default=Path("results/summary.csv"))
    parser.add_argument("--benchmarks", type=Path, default=Path("logs/benchmarks"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    arguments = parser.parse_args()
    if not arguments.summary.exists():
        raise UserError(f"{arguments.summary}: no finished run; run `make demo` first")
    text = arguments.readme.read_text(encoding="utf-8")
    tables = {"quality": quality(read_rows(arguments.summary)), "shares": shares(arguments.benchmarks)}
    for name, table in tables.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}<!-- {name} -->\n{table}\n{end}{after}"
    files.write_text(arguments.readme, text)


if __name__ == "__main__":
    run(main)
