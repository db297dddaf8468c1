"""Compare two runs: their recipes, inputs, environments, costs, metrics, loss curves and answers.

A run is a directory such as results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1, or REVISION:DIRECTORY
for a git revision whose results are in DVC. To compare whole experiments, give `results` and REVISION:results.
Prints the differences and writes them to a page.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snakemake.assets import Assets

from snaketune.core import errors, files, manifest, paths
from snaketune.core.errors import UserError
from snaketune.core.layout import RECORDS
from snaketune.core.nested import differences
from snaketune.core.tables import Row
from snaketune.provenance.snakemake_records import run_manifest
from snaketune.reporting import run_pair
from snaketune.reporting.templates import render
from write_report import VEGA

HEAVY = (".safetensors", ".onnx", ".onnx_data", "tokenizer.json")
TEMPLATE = Path(__file__).parents[1] / "report/diff.html.j2"
PAGE = Path("work/diff.html")


def locate(name: str, scratch: Path) -> Path:
    """Return a directory in results/; fetch a revision's small files of it first.

    Raises:
        UserError: DVC does not know the revision or has no such directory in it.
    """
    if ":" not in name:
        return Path(name)
    from dvc.api import DVCFileSystem

    revision, _, directory = name.partition(":")
    if Path(directory).is_absolute() or ".." in Path(directory).parts:
        raise UserError(f"{name}: give the directory relative to the repository, results/runs/…")
    try:
        dvc = DVCFileSystem(rev=revision)
        names = [path for path in dvc.find(directory) if not path.endswith(HEAVY)]
        if not names:
            raise FileNotFoundError(f"it has no {directory}")
        match Path(directory).parts:
            case (*_, "runs", model, scenario, _, _):
                # An untuned run has no manifest but that of its base model.
                beside = [f"{paths.BASE.format(model=model)}/{record}" for record in RECORDS]
                beside += [f"{paths.DATA.format(scenario=scenario)}/test.jsonl", "params.yaml"]
                names += [path for one in beside if dvc.exists(path := f"results/{one}")]
        for path in names:
            target = scratch / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            dvc.get_file(path, str(target))
    except Exception as error:  # a remote's own library raises its own exceptions
        raise UserError(
            f"{name}: DVC can't read it ({error}); `dvc fetch --all-commits` fetches older results"
        ) from None
    return scratch / directory


def label(side: str, name: str) -> str:
    """Return what a plot and a table call a run: its revision, or the end of its path."""
    return f"{side}: {name.partition(':')[0] if ':' in name else '/'.join(Path(name).parts[-2:])}"


def pairs(a: Path, b: Path) -> list[run_pair.Runs]:
    """Return the two runs, or those that two directories of results have both."""
    if not all((one / "params.yaml").is_file() for one in (a, b)):
        return [(a, b)]
    of_a, of_b = ({run.relative_to(one) for run in one.glob("runs/*/*/*/seed-*")} for one in (a, b))
    if not of_a & of_b:
        raise UserError(f"{a} and {b} have no run in common")
    return [(a / run, b / run) for run in sorted(of_a & of_b)]


def compared(runs: run_pair.Runs, labels: tuple[str, str]) -> Row:
    """Return how two runs of one scenario differ.

    Raises:
        UserError: one is no finished run, or they are of different scenarios.
    """
    records = [run_manifest(run) for run in runs]
    made = [manifest.read(path) for path in records]
    where = [files.read_json(path.with_name("provenance.json")) for path in records]
    (results, (_, scenario, *_)), (_, (_, other, *_)) = map(paths.cell_of, runs)
    if scenario != other:
        raise UserError(f"the runs are of different scenarios, {scenario} and {other}: give two runs of one scenario")
    resolved = files.read_yaml(results / "params.yaml")
    if scenario not in resolved["scenarios"]:
        raise UserError(
            f"scenario {scenario} is not in {results}/params.yaml, the record of the last experiment: run its experiment again"
        )
    metric, options = resolved["scenarios"][scenario]["primary_metric"], resolved["experiment"]["evaluation"]
    samples, confidence = options["bootstrap_samples"], options["confidence"]
    metrics = [run_pair.metric_row(runs, name, metric, samples, confidence) for name in run_pair.backends_of(runs)]
    in_torch = next((row for row in metrics if row["backend"] == "torch"), {"why": "not evaluated"})
    keys = ("commit", "python", "packages", "hardware")
    return {
        "title": "/".join(runs[0].parts[-4:]) if runs[0].parts[-4:] == runs[1].parts[-4:] else " and ".join(labels),
        "labels": labels,
        "confidence": confidence,
        "differences": {
            "recipe, code and environment": differences(made[0]["recipe"], made[1]["recipe"]),
            "inputs": differences(made[0]["inputs"], made[1]["inputs"]),
            "made by": differences(*({key: one.get(key) for key in keys} for one in where)),
            "resources": run_pair.costs(runs),
        },
        "metrics": metrics,
        "plots": run_pair.plots(runs, labels),
        "answers": run_pair.answers(
            runs, labels, results / paths.DATA.format(scenario=scenario) / "test.jsonl", in_torch
        ),
    }


def short(value: Any) -> Any:
    """Return a value as it is shown: of a hash its beginning, of a number six digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:.12}…" if isinstance(value, str) and len(value) == 64 else value


def show(part: Row) -> None:
    """Print how two runs differ."""
    for title, changed in part["differences"].items():
        print(f"\n{title}:" if changed else f"\n{title}: equal")
        for key, (one, other) in changed.items():
            print(f"  {key}: {short(one)} → {short(other)}")
    print("\nmetrics:")
    for row in part["metrics"]:
        text = f"  {row['backend']}: {row['metric']} {row['values'][0]:.3f} → {row['values'][1]:.3f}"
        if row["why"]:
            print(f"{text} ({row['why']})")
            continue
        found = row["difference"]
        print(
            f"{text}, difference {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], n = {row['n']}: {row['verdict']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write the page (%(default)s)")
    arguments = parser.parse_args()
    names = (arguments.a, arguments.b)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        found = pairs(locate(names[0], Path(one)), locate(names[1], Path(other)))
        parts = [compared(runs, (label("A", names[0]), label("B", names[1]))) for runs in found]
    for part in parts:
        if len(parts) > 1:
            print(f"\n{part['title']}")
        show(part)
    scope = run_pair.scope(sum(len(part["metrics"]) for part in parts), parts[0]["confidence"])
    print(f"\n{scope}")
    numbered = list(enumerate(parts, start=1))
    content = {
        "names": names,
        "parts": parts,
        "scope": scope,
        "data": {
            "plots": {f"{name}-{n}": spec for n, part in numbered for name, spec in part["plots"].items()},
            "answers": {n: part["answers"] for n, part in numbered if part["answers"]},
        },
        "vega": [Assets.get_content(name) for name in VEGA],
        "short": short,
    }
    files.write_text(arguments.page, render(TEMPLATE, True, content))
    print(f"\nalso written as a page: {arguments.page}")


if __name__ == "__main__":
    errors.run(main)
