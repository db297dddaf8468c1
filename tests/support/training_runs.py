"""Runs of train.py on a model and rows that take milliseconds a step."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snaketune.config.technique import Technique
from snaketune.config.validation import validated
from snaketune.core import manifest
from snaketune.core.files import read_jsonl, read_yaml
from snaketune.data.tokens import Rows, write_rows
from snaketune.training.loop import TrainingLoop
from support.models import tiny_phi3

REPOSITORY = Path(__file__).parents[2]
# Those that train.py trains; a file may have its service or platform do that.
TECHNIQUES = sorted(
    path.stem
    for path in (REPOSITORY / "config/techniques").glob("*.yaml")
    if not {"service", "platform"} & read_yaml(path).keys()
)
# Divided by no number of ranks or micro-batches: the last batch of an epoch has one row.
TRAINING = {"epochs": 2, "batch_rows": 8, "compute_precision": "fp32", "keep_weights": True, "seed": 1}
ROWS = 25


def rows_to_learn(count: int, seed: int, shared: tuple[int, ...] = ()) -> Rows:
    """The answer is a function of the first token, or of the first one after the ``shared`` ones."""
    generator = np.random.default_rng(seed)
    prompts = [generator.integers(3, 40, generator.integers(3, 12)) for _ in range(count)]
    ids = [np.array([*shared, *prompt, 50 + prompt[0] % 2, 41, 2], dtype=np.int32) for prompt in prompts]
    return Rows(ids, [np.arange(len(row)) >= len(row) - 3 for row in ids])


def write_inputs(directory: Path) -> None:
    """A base model and tokenized rows, with their manifests."""
    base, tokens = directory / "base", directory / "tokens"
    tiny_phi3(128, initializer_range=0.1).save_pretrained(base)
    tokens.mkdir()
    for number, split in enumerate(("train", "validation")):
        rows = rows_to_learn(ROWS if split == "train" else 16, number, shared=(42, 43, 44, 45, 46))
        write_rows(tokens / f"{split}.safetensors", rows)
    for made in (base, tokens):
        manifest.record(made, {}, [], sorted(made.iterdir()))


def recipe_of(technique: str, family: str = "phi3", **changes: Any) -> dict[str, Any]:
    """The recipe of a shipped technique at a rate that this model learns at."""
    content = read_yaml(REPOSITORY / f"config/techniques/{technique}.yaml")
    recipe: dict[str, Any] = validated(Technique, content, technique).recipe(family)
    return recipe | TRAINING | {"learning_rate": 0.003, "micro_batch_rows": 3} | changes


def command(inputs: Path, out: Path, recipe: dict[str, Any], checkpoint_steps: int = 1000) -> list[str]:
    """train.py and its arguments, for a Python or a launcher."""
    options = {
        "recipe": json.dumps(recipe),
        "base-directory": inputs / "base",
        "tokens-directory": inputs / "tokens",
        "output-directory": out / "run",
        "work": out / "work",
        "checkpoint-steps": checkpoint_steps,
    }
    script = str(REPOSITORY / "scripts/train.py")
    return [script, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def killed(run: TrainingLoop, step: int) -> None:
    """Let a run end in a step, as by a signal without warning."""

    class Killed(Exception):
        pass

    def kill() -> float:
        raise Killed

    with pytest.raises(Killed):
        run.run(kill, step)


def curve(out: Path) -> list[dict[str, Any]]:
    return read_jsonl(out / "run/train.jsonl")


def weights(out: Path) -> bytes:
    return next((out / "run").glob("*/*.safetensors")).read_bytes()
