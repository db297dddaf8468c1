"""Check what KAITO is to train and serve before any job starts."""

from itertools import product
from typing import Any

from pydantic import Field

from snaketune.config import experiment
from snaketune.config.adapter import LINEAR_LAYERS, Lora
from snaketune.config.matrix import Matrix
from snaketune.config.model import Model
from snaketune.config.technique import OF_THE_LOOP
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.platforms.kaito.technique import PRESETS, Kaito, KaitoTechnique, Nodes, Serving, fill_placeholders


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
    hub = (model.hub or "").lower()
    found = nodes.preset or next((preset for preset, repository in PRESETS.items() if repository.lower() == hub), None)
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
    written: dict[str, tuple[Any, ...]] = {}
    for (name, technique), model, scenario in product(techniques(matrix).items(), own.models, own.scenarios):
        where = f"config/techniques/{name}.yaml: platform"
        preset_of(technique.platform, model, matrix.models[model], where)
        layers = matrix.technique_recipe(model, name)["adapter"]["options"]["target_modules"]
        if wrong := sorted(set(layers) - set(LINEAR_LAYERS["phi3"])):
            raise UserError(
                f"config/techniques/{name}.yaml: adapter.options.target_modules: {', '.join(wrong)} match nothing in KAITO's Phi models, whose layers are fused: {', '.join(LINEAR_LAYERS['phi3'])}"
            )
        if given := sorted(OF_THE_LOOP & own.training.model_dump().keys()):
            raise UserError(f"training.{given[0]}: KAITO doesn't get it: leave it out, or {name}")
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
            platform = fill_placeholders(technique.platform.model_dump(), cell, "{name}")
            validated(Kaito, platform, where)
            # KAITO mounts the whole volume as its output: a second run would overwrite the first.
            place = str(platform["output"])
            if place in written and "{name}" not in place:
                raise UserError(
                    f"{where}.output: {'/'.join(map(str, cell))} would overwrite {'/'.join(map(str, written[place]))}: name the volume, or the image, and the path with {{model}}, {{scenario}}, {{technique}} and {{seed}}"
                )
            written[place] = cell
    for name, model in product(served(matrix), own.models):
        assert serving
        preset_of(serving, model, matrix.models[model], "kaito")
        for scenario in own.scenarios:
            for seed in own.seeds_of(model, scenario, name):
                validated(
                    Serving, fill_placeholders(serving.model_dump(), (model, scenario, name, seed), "{name}"), "kaito"
                )
        adapter = matrix.techniques[name].adapter
        if isinstance(adapter, Lora) and adapter.options.use_dora and serving.runtime == "vllm":
            raise UserError(f"kaito.runtime: vllm can't load a DoRA adapter such as that of {name}: set transformers")
