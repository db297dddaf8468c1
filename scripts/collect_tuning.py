"""Collect the tuning runs in one table and choose each technique's learning rate."""

from pathlib import Path
from typing import Any

from snaketune.core import cli, errors, files, tables

NEAR_BEST = 1.1


def choice(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the lowest learning rate whose validation loss is within 10 % of the grid's best.

    One epoch favours rates that diverge in a longer training, so of nearly equal rates the lowest is safer.
    """
    best = min(row["validation_loss"] for row in rows)
    return min(
        (row for row in rows if row["validation_loss"] <= NEAR_BEST * best), key=lambda row: row["learning_rate"]
    )


def main() -> None:
    parser = cli.job_parser(__doc__, "grid", "--output")
    parser.add_argument(
        "--curves", type=Path, nargs="+", required=True, help="…/MODEL/SCENARIO/TECHNIQUE/RATE/train.jsonl"
    )
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
    cells = dict.fromkeys((row["model"], row["scenario"], row["technique"]) for row in rows)
    chosen = [
        choice([row for row in rows if (row["model"], row["scenario"], row["technique"]) == cell]) for cell in cells
    ]
    for row in rows:
        row["chosen"] = "yes" if row in chosen else ""
    tables.write(arguments.output, rows[0], rows)
    for row in chosen:
        cell = f"{row['model']} {row['scenario']} {row['technique']}"
        print(f"{cell}: learning rate {row['learning_rate']:g}, validation loss {row['validation_loss']:.4f}")


if __name__ == "__main__":
    errors.run(main)
