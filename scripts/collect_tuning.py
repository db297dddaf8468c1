"""Collect the tuning runs in one table and choose each technique's learning rate."""

import collections
from pathlib import Path
from typing import Any

from snaketune.core import cli, errors, files, tables

NEAR_BEST = 1.1


def choice(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the lowest learning rate whose validation loss is within 10 % of the grid's best.

    One epoch favours rates that diverge in a longer training, so of nearly equal rates the lowest is safer.
    """
    best = min(row["validation_loss"] for row in rows)
    good = [row for row in rows if row["validation_loss"] <= NEAR_BEST * best]
    return min(good, key=lambda row: row["learning_rate"])


def main() -> None:
    parser = cli.job_parser(__doc__, "grid", "--output")
    parser.add_argument(
        "--curves", type=Path, nargs="+", required=True, help="…/MODEL/SCENARIO/TECHNIQUE/RATE/train.jsonl"
    )
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = []
    cells = collections.defaultdict(list)
    for curve in arguments.curves:
        model, scenario, technique, rate = curve.parts[-5:-1]
        last = files.read_jsonl(curve)[-1]
        cell = {"model": model, "scenario": scenario, "technique": technique}
        measured = {"validation_loss": last["validation_loss"], "train_tokens": last["tokens"]}
        rows.append(cell | {"learning_rate": float(rate)} | measured | {"chosen": ""})
        cells[" ".join(cell.values())].append(rows[-1])
    for name, tried in cells.items():
        chosen = choice(tried)
        chosen["chosen"] = "yes"
        print(f"{name}: learning rate {chosen['learning_rate']:g}, validation loss {chosen['validation_loss']:.4f}")
    tables.write(arguments.output, rows[0], rows)


if __name__ == "__main__":
    errors.run(main)
