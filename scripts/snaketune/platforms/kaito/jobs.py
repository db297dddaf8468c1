"""Check what KAITO is to train and serve before any job starts, and list the parameters of each job."""

from itertools import product
from typing import Any

from pydantic import Field

from snaketune.config import experiment
from snaketune.config.matrix import Matrix
from snaketune.config.model import Model
from snaketune.config.technique import Lora
from snaketune.core.errors import UserError
from snaketune.dag.recipes import Recipes
from snaketune.platforms.kaito.admission import PRESETS
from snaketune.platforms.kaito.manifests import places
from snaketune.platforms.kaito.technique import KaitoTechnique, Nodes, Serving, filled

# Settings of our own trainer; KAITO uses another.
LOCAL = {"engine", "threads", "world_size", "micro_batch_rows", "keep_weights", "platform"}


class Experiment(experiment.Experiment):
    """What makes the matrix: models × scenarios × techniques × seeds, and export precisions."""

    # Excluded if unset, so that the records of other experiments don't change.
    kaito: Serving | None = Field(
        None, exclude_if=lambda value: value is None, description="`kaito_serving` serves each LoRA adapter there"
    )


def preset_of(nodes: Nodes, name: str, model: Model, where: str) -> str:
    """Return KAITO's name of a model.

    Raises:
        UserError: KAITO has no preset of it.
    """
    found = nodes.preset or next(
        (one for one, hub in PRESETS.items() if hub.lower() == (model.hub or "").lower()), None
    )
    if found is None:
        raise UserError(
            f"{where}.preset: KAITO has no preset of {name} ({model.hub or 'not on the hub'}); KAITO tunes {', '.join(PRESETS)}"
        )
    return str(found)


def techniques(matrix: Matrix) -> dict[str, KaitoTechnique]:
    """Return the techniques of an experiment that KAITO trains."""
    return {name: one for name, one in matrix.techniques.items() if isinstance(one, KaitoTechnique)}


def serving_of(matrix: Matrix) -> Serving | None:
    """Return how an experiment's adapters are served, or None."""
    return matrix.experiment.kaito if isinstance(matrix.experiment, Experiment) else None


def served(matrix: Matrix) -> list[str]:
    """List the techniques whose adapters KAITO's servers can load."""
    return [name for name, one in matrix.techniques.items() if serving_of(matrix) and isinstance(one.adapter, Lora)]


def check(matrix: Matrix) -> None:
    """Raise a UserError if KAITO couldn't train, or serve, a run of an experiment as it is configured."""
    own, serving = matrix.experiment, serving_of(matrix)
    known = techniques(matrix)
    written: dict[str, tuple[str, str, str, int]] = {}
    for (name, technique), model, scenario in product(known.items(), own.models, own.scenarios):
        where = f"config/techniques/{name}.yaml: platform"
        preset_of(technique.platform, model, matrix.models[model], where)
        try:
            technique.batches(own.training.batch_rows)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if not matrix.scenarios[scenario].has_messages:
            raise UserError(
                f"{where}: KAITO trains on messages, but {scenario} is task: {matrix.scenarios[scenario].task}; leave one of the two out"
            )
        for seed in own.seeds_of(model, scenario, name):
            cell = (model, scenario, name, seed)
            # KAITO mounts the whole volume as its output: a second run would overwrite the first.
            place = str(filled(technique.platform.output.model_dump(), places(list(cell), "{name}")))
            if place in written and "{name}" not in place:
                raise UserError(
                    f"{where}.output: {'/'.join(map(str, cell))} would overwrite {'/'.join(map(str, written[place]))}: name the volume, or the image, and the path with {{model}}, {{scenario}}, {{technique}} and {{seed}}"
                )
            written[place] = cell
    for name, model in product(served(matrix), own.models):
        assert serving
        preset_of(serving, model, matrix.models[model], "kaito")
        adapter = matrix.techniques[name].adapter
        if isinstance(adapter, Lora) and adapter.options.use_dora and serving.runtime == "vllm":
            raise UserError(f"kaito.runtime: vllm can't load a DoRA adapter such as that of {name}: set transformers")


def tuning_params(matrix: Recipes, model: str, scenario: str, technique: str, seed: int) -> dict[str, Any]:
    """Return the parameters of a run's tuning manifests."""
    found, training = techniques(matrix)[technique], matrix.training_recipe(model, technique, seed)
    preset = preset_of(found.platform, model, matrix.models[model], technique)
    return {
        "cell": [model, scenario, technique, seed],
        "training": {key: value for key, value in training.items() if key not in LOCAL},
        "platform": {**found.platform.model_dump(), "preset": preset},
        "batches": list(found.batches(training["batch_rows"])),
        "max_tokens": matrix.scenarios[scenario].max_tokens,
        "hub": matrix.models[model].hub,
    }


def serving_params(matrix: Matrix, model: str, scenario: str, technique: str, seed: int) -> dict[str, Any]:
    """Return the parameters of the manifest that serves a run's adapter."""
    serving = serving_of(matrix)
    assert serving
    preset = preset_of(serving, model, matrix.models[model], "kaito")
    return {"cell": [model, scenario, technique, seed], "serving": {**serving.model_dump(), "preset": preset}}
