"""Print which operators the decoding of an onnxruntime-genai package spends its time in."""

import argparse
import bisect
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import numpy as np

from snaketune.core import errors, files
from snaketune.evaluation import speed
from snaketune.inference.genai_backend import GenaiBackend


def profile(model: Path, threads: int, prompts: np.ndarray, new: int) -> list[str]:
    """Return the `shares` of decoding time by operator, from ONNX Runtime's own profile."""
    with tempfile.TemporaryDirectory() as directory:
        backend = GenaiBackend(model, threads, enable_profiling=f"{directory}/profile")
        speed.GenaiLoop(backend).generate(prompts, new)
        del backend  # the session writes its profile when it ends
        [path] = Path(directory).iterdir()
        events = json.loads(path.read_text())
    return shares(events)


def shares(events: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table: each operator's microseconds per decoding step, and their share.

    Medians of the steps, which a busy moment of the machine doesn't move. The first run of the
    model is the prompt's, and is left out.
    """
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"])[1:]
    starts = [run["ts"] for run in runs]
    spent: dict[str, list[float]] = {}
    for event in events:
        step = bisect.bisect_right(starts, event["ts"]) - 1
        if event["name"].endswith("_kernel_time") and step >= 0:
            spent.setdefault(event["args"]["op_name"], [0.0] * len(runs))[step] += event["dur"]
    between = [run["dur"] - sum(steps[n] for steps in spent.values()) for n, run in enumerate(runs)]
    medians = {name: statistics.median(steps) for name, steps in {**spent, "(between operators)": between}.items()}
    whole = sum(medians.values())
    return [
        "| operator | µs a token | share |",
        "|---|---|---|",
        *(
            f"| {name} | {time:.0f} | {time / whole:.0%} |"
            for name, time in sorted(medians.items(), key=lambda entry: -entry[1])
            if time / whole >= 0.005
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="directory of a package: onnx/genai-int4 of a run")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=64, help="(%(default)s)")
    arguments = parser.parse_args()
    if not (arguments.package / "genai_config.json").is_file():
        raise errors.UserError(f"{arguments.package}: no genai_config.json: give a directory that build_genai.py made")
    vocabulary = files.read_json(arguments.package / "genai_config.json")["model"]["vocab_size"]
    prompts = np.random.default_rng(1).integers(0, vocabulary, (1, arguments.prompt_tokens))
    model = arguments.package / "model.onnx"
    print("\n".join(profile(model, arguments.threads, prompts, arguments.new_tokens)))


if __name__ == "__main__":
    errors.run(main)
