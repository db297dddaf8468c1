"""Compare the exports of a 36-million-parameter Phi-3 with torch, optimum and llama.cpp, and record which goals they reach.

Without --run-directory's exports, makes them with the workflow's own scripts, out of the random
model that `snakemake results/models/phi3-36m/base/manifest.json --configfile
config/experiments/published-table.yaml` makes. llama.cpp runs the same weights out of GGUF files,
from packages of their own (benchmarks/exports-requirements.txt; they are compiled, which
takes ten minutes). Each system has a process; all are loaded, and take turns in every round, so
that a ratio is of one moment of one machine, which should have nothing else to do. Prefill is the
prompt's tokens over the time to the first new one, decode the rate after that.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import turns  # first: it puts the workflow's modules on the path

# isort: split
import llama
import numpy as np
import optimum_loop
from turns import ROOT

from snaketune.config.export import Export
from snaketune.core import errors, files, layout, manifest
from snaketune.core.precisions import backend_of
from snaketune.evaluation import speed

LOG = "exports"
REQUIREMENTS = ROOT / "benchmarks/exports-requirements.txt"
EXPORTING = ROOT / "envs/export/requirements.txt"
# llama.cpp's own AMX kernels end with a segmentation fault on some processors (ggml-org/llama.cpp 20824; seen with
# Sapphire Rapids); its AVX-512 ones are used there instead.
WITHOUT_AMX = "-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8"
GGUF = {"llama-q4_0": "Q4_0", "llama-f32": "F32"}
# optimum's generate over exports that our own loop runs too.
OPTIMUM = {"optimum-fp32": "fp32", "optimum-int8": "int8"}
PRECISIONS = ("fp32", "int8", "int4", "genai-fp32", "genai-int4")
# Which system's rate or size over which other's, and what is aimed at.
GOALS: list[tuple[str, str, str, str, float]] = [
    ("decode", "genai-int4", "torch-fp32", "at least", 8.0),
    ("decode", "genai-int4", "torch-bf16", "at least", 5.0),
    ("prefill", "onnx-int8", "torch-bf16", "at least", 1.4),
    ("decode", "genai-int4", "llama-q4_0", "at least", 1.0),
    ("bytes", "genai-int4", "torch-fp32", "at most", 0.16),
]
# So many prompts are compared with torch, by the logits of their last position.
COMPARED = 16


def make_export(run: Path, precision: str) -> None:
    """Make onnx/PRECISION of merged/ as the workflow's rules do."""
    recipe = Export.model_validate(files.read_yaml(ROOT / f"config/exports/{precision}.yaml")).model_dump()
    recipe.pop("description")
    if recipe["method"] == "genai":
        script = ["scripts/build_genai.py", "--model-directory", run / "merged"]
    else:
        script = ["scripts/quantize_onnx.py", "--model", run / "onnx/fp32/model.onnx"]
    run_script(*script, "--recipe", json.dumps(recipe), "--output-directory", run / f"onnx/{precision}")


def run_script(*words: str | Path) -> None:
    lock = ["--lock", EXPORTING, "--unless", "optimum-onnx", "--"]
    done = subprocess.run([sys.executable, "scripts/make_environment.py", *lock, *words], cwd=ROOT, check=False)
    if done.returncode:
        raise errors.UserError(f"{words[0]} failed; the end of work/benchmarks/{LOG}.log says why")


def complete(run: Path, model: Path, precisions: list[str]) -> None:
    """Make what a run's directory lacks: merged/ as a copy of ``model``, and the exports."""
    if not (run / "merged/manifest.json").is_file():
        manifest.prove(model / "manifest.json", *layout.MODEL_FILES)
        (run / "merged").mkdir(parents=True, exist_ok=True)
        for name in ("manifest.json", *layout.MODEL_FILES):
            shutil.copyfile(model / name, run / "merged" / name)
    if not (run / "onnx/fp32/manifest.json").is_file():
        run_script(
            "scripts/export_onnx.py",
            *("--recipe", "{}", "--model-directory", run / "merged", "--output-directory", run / "onnx/fp32"),
        )
    for precision in precisions:
        if not (run / f"onnx/{precision}/manifest.json").is_file():
            make_export(run, precision)


def rates(rounds: list[tuple[float, float]], prompt: int, new: int) -> dict[str, list[float]]:
    """Tokens per second of each round, from (seconds to the first new token, seconds from there to the last)."""
    return {
        "prefill": [prompt / first for first, _ in rounds],
        "decode": [(new - 1) / rest for _, rest in rounds],
    }


def compare(of: dict[str, dict[str, Any]], sizes: dict[str, int]) -> list[dict[str, Any]]:
    """Each goal whose systems were measured: its ratio, by round and then the median, and whether it is reached."""
    found = []
    for figure, system, other, bound, aim in GOALS:
        if system not in of or other not in of:
            continue
        if figure == "bytes":
            ratios = [sizes[system] / sizes[other]]
        else:
            ratios = [a / b for a, b in zip(of[system][figure], of[other][figure], strict=True)]
        ratio = speed.spread(ratios)
        reached = ratio["median"] >= aim if bound == "at least" else ratio["median"] <= aim
        found.append(
            {
                **{"figure": figure, "system": system, "over": other, "goal": f"{bound} {aim:g}"},
                **{"ratio": ratio, "n": len(ratios), "reached": reached},
            }
        )
    return found


def differences(logits: dict[str, np.ndarray], parent: str = "torch-fp32") -> dict[str, dict[str, float]]:
    """Compare each system's logits, (prompts, vocabulary), with the parent's."""
    return {
        name: {
            "largest_logit_difference": float(np.abs(mine - logits[parent]).max()),
            "greedy_agreement": float((mine.argmax(-1) == logits[parent].argmax(-1)).mean()),
        }
        for name, mine in logits.items()
    }


def counting_processor_time(load: Callable[[], speed.PythonLoop]) -> speed.PythonLoop:
    model = load()
    model.clock = time.process_time
    return model


def measured(
    loaders: dict[str, Callable[[], speed.PythonLoop]],
    vocabulary: int,
    context: int,
    length: int,
    new: int,
    rounds: int,
) -> dict[str, Any]:
    """Measure each system's ``rates``, load time, and difference of logits from torch."""
    text = np.random.default_rng(1).integers(8, vocabulary, COMPARED * length)
    recipe = {"prompt_lengths": [length], "batch_sizes": [1], "new_tokens": new, "rounds": rounds}
    servers: dict[str, speed.Server] = {}
    try:
        for name, loader in loaders.items():
            servers[name] = speed.Server(name, loader)
        prompts = speed.prompts_of(text, COMPARED, length)
        compared = differences({name: server.ask("logits", prompts) for name, server in servers.items()})
        times = speed.timed(servers, text, context, recipe)
    finally:
        for server in servers.values():
            server.stop()
    return {
        name: {**rates(times[name][length, 1], length, new), **server.loaded, **compared[name]}
        for name, server in servers.items()
    }


def arguments_of() -> argparse.Namespace:
    known = [*map(backend_of, PRECISIONS), *OPTIMUM, *GGUF]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run-directory",
        type=Path,
        default=ROOT / "work/benchmarks/exports",
        help="of a run: merged/ and onnx/; what is missing is made there (%(default)s)",
    )
    parser.add_argument(
        "--model-directory",
        type=Path,
        default=ROOT / "results/models/phi3-36m/base",
        help="copied as merged/ of a run that has none (%(default)s)",
    )
    parser.add_argument(
        "--systems", nargs="+", default=known, choices=known, help="in addition to torch; all by default"
    )
    parser.add_argument("--packages", type=Path, help="a directory that has llama-cpp-python and gguf; else made")
    parser.add_argument("--threads", type=int, default=2, help="of each system (%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count processor time, which other work on the machine hardly moves: with --threads 1",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/exports.json", help="(%(default)s)")
    arguments = parser.parse_args()
    if arguments.processor_time and arguments.threads != 1:
        parser.error("--processor-time needs --threads 1: several threads spin while they wait")
    return arguments


def main() -> None:
    arguments = arguments_of()
    run, threads, new = arguments.run_directory.absolute(), arguments.threads, arguments.new_tokens
    turns.quiet(LOG)
    wanted = [p for p in PRECISIONS if {backend_of(p), f"optimum-{p}"} & set(arguments.systems)]
    complete(run, arguments.model_directory, wanted)
    config = files.read_json(run / "merged/config.json")
    context, vocabulary = config["max_position_embeddings"], config["vocab_size"]
    if arguments.prompt_tokens + new > context:
        raise errors.UserError(
            f"--prompt-tokens and --new-tokens are more than the context of the model, {context}: lower them"
        )
    with tempfile.TemporaryDirectory() as directory:
        exports = [run / f"onnx/{name}/model.onnx" for name in PRECISIONS if backend_of(name) in arguments.systems]
        own = speed.systems_of(run / "merged/model.safetensors", exports)
        loaders = {name: partial(speed.loaded, name, path, threads) for name, path in own.items()}
        sizes = {name: speed.file_bytes(name, path) for name, path in own.items()}
        for name in set(OPTIMUM) & set(arguments.systems):
            directory_of = run / f"onnx/{OPTIMUM[name]}"
            loaders[name] = partial(optimum_loop.loaded, directory_of, turns.packages_of(EXPORTING), threads)
            sizes[name] = speed.file_bytes(name, directory_of / "model.onnx")
        if others := [name for name in GGUF if name in arguments.systems]:
            # The processes of the systems inherit this path.
            if arguments.packages:
                sys.path.append(str(arguments.packages))
            else:
                if platform.machine() == "x86_64":
                    os.environ["CMAKE_ARGS"] = WITHOUT_AMX
                turns.add_packages(REQUIREMENTS)
            for name in others:
                path = Path(directory) / f"{name}.gguf"
                llama.write_gguf(run / "merged", path, GGUF[name])
                loaders[name] = partial(llama.loaded, path, threads, context)
                sizes[name] = path.stat().st_size
        if arguments.processor_time:
            loaders = {name: partial(counting_processor_time, load) for name, load in loaders.items()}
        found = measured(loaders, vocabulary, context, arguments.prompt_tokens, new, arguments.rounds)
    goals = compare(found, sizes)
    for name, mine in found.items():
        mine |= {f"{figure}_tokens_per_second": speed.spread(mine.pop(figure)) for figure in ("prefill", "decode")}
        mine["file_bytes"] = sizes[name]
    asked = ("threads", "processor_time", "prompt_tokens", "new_tokens", "rounds")
    options = {name: getattr(arguments, name) for name in asked}
    made = {"systems": found, "goals": goals, **turns.provenance(), **options}
    files.write_json(arguments.output, made)
    for goal in goals:
        ratio = goal["ratio"]
        print(
            f"{'reached' if goal['reached'] else 'missed'}: {goal['figure']} of {goal['system']} is {ratio['median']:.3g} [{ratio['least']:.3g}, {ratio['most']:.3g}] × {goal['over']}, goal {goal['goal']}, n = {goal['n']}"
        )


if __name__ == "__main__":
    errors.run(main)
