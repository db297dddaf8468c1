"""Two runs beside each other: metrics with paired intervals, costs, loss curves and answers."""

from pathlib import Path

from snaketune.config.tasks import LOWER_IS_BETTER
from snaketune.core import files
from snaketune.core.nested import differences
from snaketune.core.tables import Row
from snaketune.evaluation import few_rows
from snaketune.evaluation.bootstrap import Resampling, percentiles
from snaketune.reporting.answers import side_by_side
from snaketune.reporting.difference import Difference, too_few
from snaketune.reporting.plots import PALETTE, loss_curves
from snaketune.reporting.results import row_statistics

MEASURED = ("peak_memory_bytes", "seconds", "tokens_per_second", "trainable_parameters")
Runs = tuple[Path, Path]


def unpaired(runs: Runs, backend: str) -> str | None:
    """Return why the answers of two runs can't be paired, or None."""
    one, other = (files.read_jsonl(run / f"evaluation/{backend}.predictions.jsonl") for run in runs)
    if [(row["id"], row.get("reference")) for row in one] != [(row["id"], row.get("reference")) for row in other]:
        return "different test rows: no paired interval"
    if not all("statistics" in row for row in (*one, *other)):
        return "predictions without statistics, of an older version: no paired interval"
    return None


def metric_row(runs: Runs, backend: str, metric: str, samples: int, confidence: float) -> Row:
    """Return a backend's metric in both runs and, where their rows can be paired, the interval of b - a."""
    values = [files.read_json(run / f"evaluation/{backend}.json")["metrics"][metric] for run in runs]
    row = {"backend": backend, "metric": metric, "values": values, "why": unpaired(runs, backend)}
    if row["why"]:
        return row
    statistics = [row_statistics(run, backend, metric) for run in runs]
    rows = len(statistics[0])
    draws = Resampling(rows, samples)
    (_, first), (_, second) = (draws.values(metric, [found]) for found in statistics)
    ends = percentiles(second - first, confidence)
    low, high = few_rows.difference_interval(metric, statistics[1], statistics[0], ends, confidence)
    found = Difference(values[1] - values[0], low, high, metric not in LOWER_IS_BETTER, too_few(rows))
    words = {"better": "B is better", "worse": "A is better"}
    return row | {"n": rows, "difference": found, "verdict": words.get(found.verdict, found.verdict)}


def scope(comparisons: int, confidence: float) -> str:
    """Say what the verdicts of so many comparisons are about."""
    alone = f" Each interval holds on its own, not all {comparisons} at once." if comparisons > 1 else ""
    return f"A verdict is about the two models, on rows like the test rows, by a paired {100 * confidence:g} % interval; it isn't about their techniques.{alone}"


def backends_of(runs: Runs) -> list[str]:
    """Return the backends by which both runs were evaluated."""
    one, other = ({path.name for path in (run / "evaluation").glob("*.predictions.jsonl")} for run in runs)
    return [name.removesuffix(".predictions.jsonl") for name in sorted(one & other)]


def costs(runs: Runs) -> dict[str, tuple[object, object]]:
    measured = [run / "resources.json" for run in runs]
    if not all(path.exists() for path in measured):
        return {}
    return differences(*({name: files.read_json(path)[name] for name in MEASURED} for path in measured))


def plots(runs: Runs, labels: tuple[str, str]) -> dict[str, Row]:
    """Return the loss curves of those of the runs that were trained, in one plot."""
    found = [
        {"technique": label, "colour": colour, "curves": [(run.name, files.read_jsonl(run / "train.jsonl"))]}
        for run, label, colour in zip(runs, labels, PALETTE, strict=False)
        if (run / "train.jsonl").is_file()
    ]
    return {"curves": loss_curves(found)} if found else {}


def answers(runs: Runs, labels: tuple[str, str], test_rows: Path, metric: Row) -> Row | None:
    """Return the answers of both runs as the report lists a technique's beside the untuned model's, if they can be paired."""
    if metric["why"] or not test_rows.is_file():
        return None
    compared = {
        "metric": metric["metric"],
        "higher_is_better": metric["difference"].higher_is_better,
        "n": metric["n"],
    }
    return side_by_side(test_rows, runs[0], {labels[1]: runs[1]}, compared)
