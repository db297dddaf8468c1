"""Gather the tuning runs into one table and name each technique's best learning rate."""

import argparse
import csv
import io
import json
from pathlib import Path

from snaketune import errors, files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument(
        "--curves", type=Path, nargs="+", required=True, help="…/MODEL/SCENARIO/TECHNIQUE/RATE/train.jsonl"
    )
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    rows = []
    for curve in arguments.curves:
        model, scenario, technique, rate = curve.parts[-5:-1]
        last = files.read_jsonl(curve)[-1]
        rows.append(
            {
                "model": model,
                "scenario": scenario,
                "technique": technique,
                "learning_rate": float(rate),
                "validation_loss": last["validation_loss"],
                "train_tokens": last["tokens"],
            }
        )
    best: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        key = (row["model"], row["scenario"], row["technique"])
        best[key] = min(best.get(key, row), row, key=lambda row: row["validation_loss"])
    for row in rows:
        row["chosen"] = "yes" if row is best[row["model"], row["scenario"], row["technique"]] else ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(arguments.output, text.getvalue())
    for (model, scenario, technique), row in best.items():
        print(
            f"{model} {scenario} {technique}: learning rate {row['learning_rate']:g}, validation loss {row['validation_loss']:.4f}"
        )


if __name__ == "__main__":
    errors.run(main)
