"""Measure what the workflow saves in training the built-in scenarios, and what it costs with nothing to do.

The first are tokens computed over tokens trained: rows share what they begin with, and none is padded. No way to share what rows
of a batch begin with computes fewer; the least is that of all rows in one batch.
The second is a test of ours: a call of the finished default experiment beside trivial rules over files of the same names.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import turns  # first: it puts the workflow's modules on the path

# isort: split
from snaketune.config.technique import Technique
from snaketune.core import errors, files
from snaketune.data.tokens import Rows, read_rows
from snaketune.training.batches import cut, plan_batches, portions, tokens_of

MODEL, SCENARIOS = "smollm2-135m-instruct", ("qa", "classification")
NO_OP = "tests/dag/test_speed.py::test_a_call_with_nothing_to_do_costs_little_more_than_snakemakes_own"


def ran(*command: str) -> str:
    """Run a command in the repository and return what it wrote.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(command, cwd=turns.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise errors.UserError(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def computed_over_trained(rows: Rows, batch_rows: int, micro_batch_rows: int, shared: bool) -> float:
    """Return the tokens computed in an epoch over those of its rows."""
    computed = sum(
        tokens_of(part, rows, shared)
        for batch in plan_batches(rows, batch_rows, 1, 1)
        for part, _ in portions(batch, rows, 1, micro_batch_rows, float("inf"), shared)[0]
    )
    return computed / rows.tokens(range(len(rows)))


def tokens() -> dict[str, Any]:
    paths = {name: f"results/tokens/{MODEL}/{name}/training" for name in SCENARIOS}
    snakemake = (
        sys.executable,
        "-m",
        "snakemake",
        "--configfile",
        "config/experiments/smollm2.yaml",
        "--config",
        f"scenarios=[{','.join(SCENARIOS)}]",
        "--",
    )
    ran(*snakemake, *(f"{path}/manifest.json" for path in paths.values()))
    default = files.read_yaml(turns.ROOT / "config/config.yaml")["training"]["batch_rows"]
    technique = Technique.model_validate(files.read_yaml(turns.ROOT / "config/techniques/lora.yaml"))
    most = technique.recipe("phi3").get("micro_batch_rows") or default
    found = {}
    for name, path in paths.items():
        rows = read_rows(turns.ROOT / path / "train.safetensors")
        of = {"shared": True, "padded": False}
        found[name] = {kind: computed_over_trained(rows, default, most, shared) for kind, shared in of.items()}
        [whole] = cut(list(range(len(rows))), rows, len(rows), float("inf"), shared=True)
        found[name]["least"] = tokens_of(whole, rows, True) / rows.tokens(whole)
    return found


def no_op() -> dict[str, float]:
    """Return CPU seconds of a call with nothing to do, and of one with trivial rules: medians of three by turns."""
    shown = ran(sys.executable, "-m", "pytest", "-s", "-m", "soak", NO_OP)
    ours, trivial = re.findall(r"ours ([\d.]+) s, trivial ([\d.]+) s", shown)[0]
    return {"seconds": float(ours), "trivial_seconds": float(trivial)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=turns.ROOT / "benchmarks/workflow.json", help="(%(default)s)")
    arguments = parser.parse_args()
    found = {"computed_over_trained": tokens(), "no_op": no_op(), **turns.provenance()}
    files.write_json(arguments.output, found)
    print(found["computed_over_trained"], found["no_op"])


if __name__ == "__main__":
    errors.run(main)
