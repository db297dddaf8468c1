"""Repeat finished runs in a clean directory and compare every file by its hash.

A run is repeated from training to parity; its data and base model are copied, or made again too with
--whole. On another type of machine bytes may differ; there, metrics are compared within --tolerance.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.evaluation.metrics import quality_change
from snaketune.provenance.snakemake_records import configfiles, dry_run, nothing_to_do, run_manifest, snakefile

DIRECTORY = Path("work/reproduce")
# Everything else at the top is linked: the workflow, your data, a local model.
NOT_LINKED = ("results", "work", "logs", ".snakemake", ".git", ".dvc", ".venv")
# Made from lock files alone and named by their digest, so sharing them changes no result.
ENVIRONMENTS = ("work/environments",)
INPUTS = ("results/corpus", "results/data", "results/models", "results/tokens", ".snakemake/metadata")


def last_file(run: Path) -> Path:
    """Return the last file that the last experiment made of a run: without exports there is no parity.json."""
    settings = Path("results/params.yaml")
    if not settings.is_file():
        raise UserError("results/params.yaml is missing: run snakemake first")
    exported = files.read_yaml(settings)["experiment"]["precisions"]
    return run / ("parity.json" if exported else "evaluation/torch.json")


def check_current(runs: list[Path], configuration: list[str]) -> None:
    """Raise a UserError if this checkout would make a run differently than it was made."""
    for run in runs:
        if not last_file(run).is_file():
            raise UserError(
                f"{run} isn't a finished run: give directories such as results/runs/MODEL/SCENARIO/NAME/seed-1"
            )
    targets = [last_file(run).as_posix() for run in runs]
    if not nothing_to_do(dry_run(*configuration, "--", *targets)):
        commit = files.read_json(run_manifest(runs[0]).with_name("provenance.json"))["commit"]
        raise UserError(
            f"this checkout would make {', '.join(map(str, runs))} differently now (`make explain FILE={targets[0]}` says why): check out the commit that made it ({commit}), or run snakemake first"
        )


def clean_directory(directory: Path, whole: bool) -> None:
    """Make a directory with links to the workflow and, unless ``whole``, copies of the data, the base models and their records."""
    shutil.rmtree(directory, ignore_errors=True)
    copied = [] if whole else [Path(name) for name in INPUTS if Path(name).exists()]
    size = sum(path.stat().st_size for name in copied for path in name.rglob("*") if path.is_file())
    files.need_space(directory, size, "a copy of the data and base models")
    linked = [path for path in Path().iterdir() if path.name not in NOT_LINKED]
    for path in (*linked, *(Path(name) for name in ENVIRONMENTS if Path(name).exists())):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).symlink_to(path.absolute())
    for path in copied:
        shutil.copytree(path, directory / path)


def hashes(run: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that equal runs share, from manifests or computed."""
    found: dict[str, str] = {}
    for path in sorted(run.rglob("manifest.json")):
        inside = path.parent.relative_to(run)
        found |= {(inside / name).as_posix(): entry["sha256"] for name, entry in manifest.read(path)["files"].items()}
    measured = [*run.glob("evaluation/*.predictions.jsonl"), *run.glob("evaluation/*.safetensors"), run / "train.jsonl"]
    return found | {path.relative_to(run).as_posix(): files.sha256(path) for path in measured if path.exists()}


def compare(run: Path, again: Path, tolerance: float) -> bool:
    """Print what differs between a run and its repetition; return whether they count as equal."""
    one, other = hashes(run), hashes(again)
    # A file that only the first has is left over from an earlier experiment.
    different = sorted(name for name in other if one.get(name) != other[name])
    if not different:
        print(f"{run}: {len(other)} files, all byte-identical")
        return True
    print(f"{run}: {len(other)} files, of which {len(different)} differ: {', '.join(different[:5])}")
    made = [files.read_json(run_manifest(path).with_name("provenance.json")) for path in (run, again)]
    machines = [provenance["hardware"]["processor"] for provenance in made]
    if machines[0] == machines[1]:
        return False
    print(f"  made on {machines[0]}, repeated on {machines[1]}: metrics may differ by {tolerance:g}")
    equal = True
    for path in sorted(again.glob("evaluation/*.json")):
        one_way, other_way = (files.read_json(base / "evaluation" / path.name)["metrics"] for base in (run, again))
        for name, value in other_way.items():
            within = abs(quality_change(name, one_way[name], value)) <= tolerance
            print(
                f"  {path.stem} {name}: {one_way[name]:.4f} → {value:.4f}{'' if within else ', which is outside the tolerance'}"
            )
            equal &= within
    return equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="results/runs/MODEL/SCENARIO/TECHNIQUE/seed-N")
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays config/config.yaml")
    parser.add_argument("--whole", action="store_true", help="also remake the data and the base model")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.03,
        help="largest change of a metric on another type of machine: 0.03 is three points of 100, or 3 %% of a perplexity",
    )
    arguments = parser.parse_args()
    runs = [Path(os.path.relpath(run)) for run in arguments.runs]
    configuration = configfiles(arguments.configfile)

    check_current(runs, configuration)
    clean_directory(DIRECTORY, arguments.whole)
    targets = [last_file(run).as_posix() for run in runs]
    command = [sys.executable, "-m", "snakemake", *snakefile(), *configuration, "--cores", "all", "--", *targets]
    if subprocess.run(command, cwd=DIRECTORY, check=False).returncode:
        raise UserError(f"the repetition failed: see {DIRECTORY}/logs")
    equal = [compare(run, DIRECTORY / run, arguments.tolerance) for run in runs]
    if not all(equal):
        raise UserError(f"not reproduced: compare with the repetition, which is kept in {DIRECTORY}")
    shutil.rmtree(DIRECTORY)


if __name__ == "__main__":
    errors.run(main)
