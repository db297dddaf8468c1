"""Write the tables for `dvc plots`: every loss curve, and quality against cost."""

from snaketune.core import cli, errors, files, tables
from snaketune.core.paths import RUN, run_path

LOSS = ["run", "tokens", "step", "loss", "validation_loss"]
QUALITY = ["run", "backend", "metric", "value", "peak_memory_bytes", "train_seconds", "artifact_bytes"]


def main() -> None:
    arguments = cli.job_parser(__doc__, "cells", "--results --loss --quality").parse_args()

    curves = []
    for cell in arguments.recipe["cells"]:
        run = run_path(*cell)
        entries = files.read_jsonl(arguments.results / run / "train.jsonl")
        curves += [{"run": run.removeprefix("runs/"), **entry} for entry in entries]
    rows = [
        {"run": RUN.format(**row).removeprefix("runs/"), **row}
        for row in tables.read(arguments.results / "summary.csv")
    ]
    tables.write(arguments.loss, LOSS, curves)
    tables.write(arguments.quality, QUALITY, rows)
    print(f"{len(curves)} steps, {len(rows)} rows")


if __name__ == "__main__":
    errors.run(main)
