"""Compare two runs: their recipes, inputs, environments, costs and metrics.

A run is a directory such as results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1, or REVISION:DIRECTORY
for one of a git revision whose results DVC has.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.config.tasks import LOWER_IS_BETTER
from snaketune.core import errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.core.layout import RECORDS
from snaketune.core.nested import differences
from snaketune.core.paths import BASE
from snaketune.evaluation import few_rows
from snaketune.evaluation.bootstrap import Resampling, percentiles
from snaketune.provenance.snakemake_records import run_manifest
from snaketune.reporting.difference import Difference, too_few
from snaketune.reporting.results import row_statistics

HEAVY = (".safetensors", ".onnx", ".onnx_data", "tokenizer.json")
MEASURED = ("peak_memory_bytes", "seconds", "tokens_per_second", "trainable_parameters")


def locate(run: str, scratch: Path) -> tuple[Path, Path]:
    """Return the directory of a run and the params.yaml of its results; fetch a revision's small files first.

    Raises:
        UserError: DVC does not know the revision or has no such run in it.
    """
    if ":" not in run:
        directory = Path(run)
        return directory, Path("results/params.yaml")
    from dvc.api import DVCFileSystem

    revision, _, name = run.partition(":")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{run}: give the directory as the repository names it, results/runs/…")
    try:
        dvc = DVCFileSystem(rev=revision)
        names = [path for path in dvc.find(name) if not path.endswith(HEAVY)]
        if not names:
            raise FileNotFoundError(f"it has no {name}")
        match Path(name).parts:
            case (*_, model, _, "base", _):  # an untuned run has no manifest but that of its base model
                names += [f"results/{BASE.format(model=model)}/{record}" for record in RECORDS]
        for path in [*names, "results/params.yaml"]:
            target = scratch / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            dvc.get_file(path, str(target))
    except Exception as error:  # a remote's own library raises its own exceptions
        raise UserError(
            f"{run}: DVC can't read it ({error}); `dvc fetch --all-commits` fetches older results"
        ) from None
    return scratch / name, scratch / "results/params.yaml"


def show(title: str, changed: dict[str, tuple[Any, Any]]) -> None:
    print(f"\n{title}:" if changed else f"\n{title}: equal")
    for key, (one, other) in changed.items():
        short = [f"{value:.12}…" if isinstance(value, str) and len(value) == 64 else value for value in (one, other)]
        print(f"  {key}: {short[0]} → {short[1]}")


def metric_line(a: Path, b: Path, backend: str, metric: str, samples: int, confidence: float) -> str:
    """Return a line with a backend's metric in both runs and the paired interval of b - a."""
    one, other = (files.read_jsonl(run / f"evaluation/{backend}.predictions.jsonl") for run in (a, b))
    values = [files.read_json(run / f"evaluation/{backend}.json")["metrics"][metric] for run in (a, b)]
    text = f"{backend}: {metric} {values[0]:.3f} → {values[1]:.3f}"
    if [(row["id"], row.get("reference")) for row in one] != [(row["id"], row.get("reference")) for row in other]:
        return f"{text} (different test rows: no paired interval)"
    if not all("statistics" in row for row in (*one, *other)):
        return f"{text} (predictions without statistics, of an older version: no paired interval)"
    draws = Resampling(len(one), samples)
    statistics = [row_statistics(run, backend, metric) for run in (a, b)]
    (_, first), (_, second) = (draws.values(metric, [found]) for found in statistics)
    ends, delta = percentiles(second - first, confidence), values[1] - values[0]
    low, high = few_rows.difference_interval(metric, statistics[1], statistics[0], ends, confidence)
    verdict = Difference(delta, low, high, metric not in LOWER_IS_BETTER, too_few(len(one))).verdict
    verdict = {"better": "the second is better", "worse": "the first is better"}.get(verdict, verdict)
    return f"{text}, difference {delta:+.3f} [{low:+.3f}, {high:+.3f}], n = {len(one)}: {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a")
    parser.add_argument("b")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        (a, settings), (b, _) = locate(arguments.a, Path(one)), locate(arguments.b, Path(other))
        paths = [run_manifest(run) for run in (a, b)]
        made = [manifest.read(path) for path in paths]
        show("recipe, code and environment", differences(made[0]["recipe"], made[1]["recipe"]))
        show("inputs", differences(made[0]["inputs"], made[1]["inputs"]))
        where = [files.read_json(path.with_name("provenance.json")) for path in paths]
        show(
            "made by",
            differences(*({k: p.get(k) for k in ("commit", "python", "packages", "hardware")} for p in where)),
        )
        measured = [run / "resources.json" for run in (a, b)]
        if all(path.exists() for path in measured):
            found = [files.read_json(path) for path in measured]
            show("resources", differences(*({name: one[name] for name in MEASURED} for one in found)))
        resolved = files.read_yaml(settings)
        scored, options = resolved["scenarios"], resolved["experiment"]["evaluation"]
        scenario = a.parts[-3]
        if scenario == b.parts[-3] and scenario not in scored:
            raise UserError(
                f"scenario {scenario} is not in results/params.yaml, which is of the last experiment: run its experiment again"
            )
        if scenario != b.parts[-3]:
            raise UserError(
                f"the runs are of different scenarios, {scenario} and {b.parts[-3]}: give two runs of one scenario"
            )
        print("\nmetrics:")
        for path in sorted((a / "evaluation").glob("*.predictions.jsonl")):
            backend = path.name.removesuffix(".predictions.jsonl")
            if (b / "evaluation" / path.name).exists():
                metric = scored[scenario]["primary_metric"]
                print("  " + metric_line(a, b, backend, metric, options["bootstrap_samples"], options["confidence"]))


if __name__ == "__main__":
    errors.run(main)
