"""Summarize every run: a row per model, scenario, technique, seed and backend; a comparison of every two techniques."""

from typing import Any

from snaketune.core import cli, errors, files, tables
from snaketune.core.precisions import backend_of
from snaketune.reporting.comparison import compare
from snaketune.reporting.params import SummaryParams
from snaketune.reporting.results import Results
from snaketune.reporting.summary import hosted_rows, local_row

COLUMNS = [
    "model", "scenario", "technique", "seed", "backend", "metric", "higher_is_better", "value", "ci_low", "ci_high",
    "n", "base_value", "delta", "delta_ci_low", "delta_ci_high", "trainable_parameters", "total_parameters",
    "world_size", "train_tokens", "train_seconds", "tokens_per_second", "peak_memory_bytes", "artifact_bytes",
    "decode_tokens_per_second", "latency_p50_ms",
]  # fmt: skip


def main() -> None:
    arguments = cli.job_parser(__doc__, SummaryParams, "--results --summary --comparisons --metrics").parse_args()

    results = Results(arguments.results, arguments.recipe)
    cells, precisions = arguments.recipe["cells"], arguments.recipe["precisions"]
    backends = {name: ("torch", *map(backend_of, exported)) for name, exported in precisions.items()}
    rows = [local_row(results, cell, backend) for cell in cells for backend in backends[cell[2]]]
    rows += hosted_rows(results, arguments.recipe["hosted"])
    tree: dict[str, Any] = {}
    known = [found for found in rows if found["value"] is not None]
    for found in known:
        branch = tree
        for key in (found["model"], found["scenario"], found["technique"], f"seed-{found['seed']}"):
            branch = branch.setdefault(key, {})
        branch[found["backend"]] = {found["metric"]: found["value"]}
    tables.write(arguments.summary, COLUMNS, rows)
    compared = dict.fromkeys((model, scenario) for model, scenario, *_ in cells)
    files.write_json(arguments.comparisons, [compare(results, *pair) for pair in compared])
    files.write_json(arguments.metrics, tree)
    for found in known:
        print(
            f"{found['model']} {found['scenario']} {found['technique']} {found['backend']}: {found['metric']} {found['value']:.3f} [{found['ci_low']:.3f}, {found['ci_high']:.3f}]"
        )


if __name__ == "__main__":
    errors.run(main)
