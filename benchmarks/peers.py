"""Compare the time of the default matrix, cold, with a shell loop of the programs that one would use instead.

For each technique that TRL can train, the loop trains and merges with TRL and peft, exports with optimum-cli, quantizes with
optimum-cli and ONNX Runtime's own program, and evaluates all four forms with our evaluate.py: one process after the other, each with
all cores. Ours is one Snakemake call in a directory that, like the loop's, has only the base and the tokens; it also
checks the parity of every conversion and writes the report. Both get the recipes of the default experiment.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import turns  # first: it puts the workflow's modules on the path

# isort: split
from snaketune.core import errors, files, layout, manifest
from snaketune.dag.recipes import Recipes
from snaketune.export.legacy_config import with_older_keys

TECHNIQUES = ("full", "lora", "qlora", "dora", "peft-ia3")
MODEL, SCENARIO = "phi3-1m", "classification"
EXPORTING = turns.ROOT / "envs/export/requirements.txt"
TRAINING = turns.ROOT / "envs/train/requirements.txt", turns.ROOT / "benchmarks/trl-requirements.txt"
# What both start from; of a model, all but exports.
GIVEN = ("corpus", f"data/{SCENARIO}", f"tokens/{MODEL}/{SCENARIO}", f"models/{MODEL}")


def ran(log: Path, *command: Any) -> float:
    """Run a command with its output in a file, and return its seconds.

    Raises:
        UserError: it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as file:
        done = subprocess.run(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise errors.UserError(f"`{' '.join(map(str, command))[:200]}` failed:\n{log.read_text()[-2000:]}")
    return time.perf_counter() - started


def settle(directory: Path, base: Path, model: str) -> None:
    """Give a peer's model what our evaluation reads beside it: a tokenizer, a configuration and a manifest."""
    for name in layout.MODEL_FILES[1:]:
        if name in layout.TOKENIZER_FILES or not (directory / name).exists():
            shutil.copyfile(base / name, directory / name)
    if model.endswith(".onnx"):
        made = next(path for path in sorted(directory.glob("*.onnx")))
        made.rename(directory / model)
        (directory / "model.onnx_data").touch()
    else:
        # optimum's transformers wouldn't read the newer keys.
        files.write_json(directory / "config.json", with_older_keys(files.read_json(directory / "config.json")))
    manifest.record(directory, {}, [], [path for path in directory.iterdir() if path.is_file()])


class Loop:
    """The shell loop, for the model and rows in ``given``."""

    def __init__(self, out: Path, given: Path, evaluation: dict[str, Any]):
        self.out, self.evaluation = out, evaluation
        self.base, self.tokens = given / f"models/{MODEL}/base", given / f"tokens/{MODEL}/{SCENARIO}"
        self.exporting = turns.packages_of(EXPORTING).parents[2] / "bin"
        self.packages = turns.packages_of(*TRAINING)
        vnni = "avx512_vnni" in turns.provenance()["hardware"]["instructions"]
        self.instructions = "--avx512_vnni" if vnni else "--avx2"

    def run(self, name: str, recipe: dict[str, Any] | None) -> dict[str, float]:
        """Train with a recipe, or take the base, and export, quantize and evaluate; return the seconds of each command."""
        run, taken = self.out / name, dict[str, float]()
        merged, fp32, int8, int4 = (run / part for part in ("merged", "onnx-fp32", "onnx-int8", "onnx-int4"))

        def timed(what: str, *command: Any) -> None:
            taken[what] = ran(run / f"{what}.log", *command)

        if recipe:
            places = ("--base", self.base, "--tokens", self.tokens / "training", "--packages", self.packages)
            told: tuple[Any, ...] = ("--recipe", json.dumps(recipe), *places, "--output", merged)
            timed("train", sys.executable, turns.ROOT / "benchmarks/trl_run.py", *told)
        else:
            shutil.copytree(self.base, merged)
        settle(merged, self.base, "model.safetensors")
        python, optimum = self.exporting / "python", self.exporting / "optimum-cli"
        timed(
            "export", python, optimum, "export", "onnx", "--model", merged, "--task", "text-generation-with-past", fp32
        )
        settle(fp32, self.base, "model.onnx")
        told = (self.instructions, "--per_channel", "--onnx_model", fp32, "--output", int8)
        timed("int8", python, optimum, "onnxruntime", "quantize", *told)
        int4.mkdir()
        told = ("--input_model", fp32 / "model.onnx", "--output_model", int4 / "model.onnx")
        options = ("--block_size", 32, "--symmetric", "True", "--accuracy_level", 4)
        timed("int4", python, "-m", "onnxruntime.quantization.matmul_nbits_quantizer", *told, *options)
        for directory in (int8, int4):
            settle(directory, self.base, "model.onnx")
        for model in (merged / "model.safetensors", *(one / "model.onnx" for one in (fp32, int8, int4))):
            told = (
                "--recipe",
                json.dumps(self.evaluation),
                "--tokens-directory",
                self.tokens / "test",
                "--model",
                model,
            )
            what = f"evaluate-{model.parent.name}"
            timed(what, sys.executable, turns.ROOT / "scripts/evaluate.py", *told, "--output", run / f"{what}.json")
        print(name, {key: round(seconds, 1) for key, seconds in taken.items()}, flush=True)
        return taken


def cold(project: Path, experiment: dict[str, Any]) -> float:
    """Return the seconds that the workflow takes for an experiment in a directory that has only what is GIVEN."""
    files.write_json(project / "config/config.yaml", experiment)
    snakemake = (sys.executable, "-m", "snakemake", "--snakefile", turns.ROOT / "Snakefile", "--directory", project)
    return ran(project / "all.log", *snakemake, "--cores", os.cpu_count())


def given_to(project: Path, source: Path) -> None:
    """Copy base and tokens of a finished experiment, with Snakemake's records of what made them."""
    if not (source / f"results/tokens/{MODEL}/{SCENARIO}/training/manifest.json").exists():
        raise errors.UserError(f"{source}: the default experiment hasn't run there: run `snakemake` first")
    shutil.rmtree(project, ignore_errors=True)
    for name in GIVEN:
        shutil.copytree(source / "results" / name, project / "results" / name, ignore=shutil.ignore_patterns("onnx"))
    shutil.copytree(source / ".snakemake/metadata", project / ".snakemake/metadata")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--techniques", nargs="+", default=list(TECHNIQUES), choices=TECHNIQUES, help="all by default")
    parser.add_argument("--steps", type=int, help="of each training, to try this program; whole trainings by default")
    parser.add_argument(
        "--source", type=Path, default=turns.ROOT, help="where the default experiment has run (%(default)s)"
    )
    parser.add_argument("--work", type=Path, default=turns.ROOT / "work/benchmarks/peers", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=turns.ROOT / "benchmarks/peers.json", help="(%(default)s)")
    arguments = parser.parse_args()
    short = {"training": {"max_steps": arguments.steps}} if arguments.steps else {}
    matrix = Recipes(files.read_yaml(turns.ROOT / "config/config.yaml"), turns.ROOT)
    steps = short.get("training", {})
    recipes = {name: matrix.training_recipe(MODEL, name, 1) | steps for name in arguments.techniques}
    ours, peers = arguments.work / "ours", arguments.work / "peers"
    given_to(ours, arguments.source)
    shutil.rmtree(peers, ignore_errors=True)
    seconds = cold(ours, {"techniques": arguments.techniques, **short})
    print(f"ours: {seconds:.0f} s", flush=True)
    loop = Loop(peers, ours / "results", matrix.evaluation_recipe(SCENARIO) | {"threads": os.cpu_count()})
    taken = {name: loop.run(name, recipes.get(name)) for name in ("base", *recipes)}
    total = sum(sum(each.values()) for each in taken.values())
    found = {"techniques": arguments.techniques, **steps, "seconds": seconds, "peers_seconds": total}
    found |= {"ratio": seconds / total, "peers": taken, **turns.provenance()}
    files.write_json(arguments.output, found)
    print(f"ours {seconds:.0f} s, the loop {total:.0f} s: {seconds / total:.2f}")


if __name__ == "__main__":
    errors.run(main)
