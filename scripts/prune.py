"""List the results that are no longer in the matrix; --delete removes them."""

import argparse
import shutil
from pathlib import Path

from snakemake.utils import update_config

from snaketune import errors, files
from snaketune.resolve import Matrix


def leftovers(matrix: Matrix, results: Path) -> list[Path]:
    """Directories of models, data, tokens, runs, seeds and precisions that the experiment doesn't name."""
    techniques = {"base", *matrix.techniques}
    seeds = {f"seed-{seed}" for seed in matrix.experiment.seeds}
    precisions = set(matrix.experiment.precisions)

    def wanted(path: Path) -> bool:
        kind, *parts = path.relative_to(results).parts
        allowed: list[set[str]] = [set(matrix.models), set(matrix.scenarios), techniques, seeds, {"onnx"}, precisions]
        if kind == "data":
            allowed = allowed[1:2]
        elif parts[2:3] == ["base"]:
            allowed[3] = {"seed-0"}
        return all(name in names for name, names in zip(parts, allowed, strict=False))

    patterns = ("models/*", "data/*", "tokens/*", "tokens/*/*", *(f"runs/{'/'.join('*' * n)}" for n in (1, 2, 3, 4)))
    found = [path for pattern in (*patterns, "runs/*/*/*/*/onnx/*") for path in sorted(results.glob(pattern))]
    unwanted = [path for path in found if path.is_dir() and not wanted(path)]
    return [path for path in unwanted if not any(path != other and path.is_relative_to(other) for other in unwanted)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", type=Path, help="of the experiment, laid over config/config.yaml")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--delete", action="store_true")
    arguments = parser.parse_args()
    config = files.read_yaml(Path("config/config.yaml"))
    if arguments.configfile:
        update_config(config, files.read_yaml(arguments.configfile))
    found = leftovers(Matrix(config, Path()), arguments.results)
    for path in found:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{'deleted' if arguments.delete else 'not in the matrix'}: {path} ({size / 2**20:.1f} MiB)")
        if arguments.delete:
            shutil.rmtree(path)
    if not found:
        print("every result is in the matrix")


if __name__ == "__main__":
    errors.run(main)
