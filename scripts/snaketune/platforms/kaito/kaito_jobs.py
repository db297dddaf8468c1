"""What of an experiment KAITO trains and serves: checked before any job starts, and the recipe of each run."""

from itertools import product
from typing import Any

from snaketune.config.model import Model
from snaketune.core.errors import UserError
from snaketune.platforms.kaito.admission import PRESETS
from snaketune.platforms.kaito.manifests import places
from snaketune.platforms.kaito.technique import KaitoTechnique, Nodes, filled

# Only ours: KAITO's trainer is another.
LOCAL = {"engine", "threads", "world_size", "micro_batch_rows", "keep_weights", "platform"}


def preset_of(nodes: Nodes, name: str, model: Model, where: str) -> str:
    """KAITO's name of a model.

    Raises:
        UserError: it has none.
    """
    found = nodes.preset or next(
        (one for one, hub in PRESETS.items() if hub.lower() == (model.hub or "").lower()), None
    )
    if found is None:
        raise UserError(
            f"{where}.preset: KAITO has no preset of {name} ({model.hub or 'not of the hub'}); those that it tunes are {', '.join(PRESETS)}"
        )
    return str(found)


def check(matrix: Any) -> None:
    """Raise a UserError where KAITO couldn't train, or serve, a run of an experiment as it is configured."""
    experiment = matrix.experiment
    known = {name: one for name, one in matrix.techniques.items() if isinstance(one, KaitoTechnique)}
    written: dict[str, tuple[str, str, str, int]] = {}
    for (name, technique), model, scenario in product(known.items(), experiment.models, experiment.scenarios):
        where = f"config/techniques/{name}.yaml: platform"
        preset_of(technique.platform, model, matrix.models[model], where)
        try:
            technique.batches(experiment.training.batch_rows)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if matrix.scenarios[scenario].task == "language-modeling":
            raise UserError(
                f"{where}: KAITO trains on messages, but {scenario} is task: language-modeling; leave one of the two out"
            )
        for seed in experiment.seeds:
            cell = (model, scenario, name, seed)
            # KAITO mounts the whole volume as its output: a second run would write over the first.
            place = str(filled(technique.platform.output.model_dump(), places(list(cell), "{name}")))
            if place in written and "{name}" not in place:
                raise UserError(
                    f"{where}.output: {'/'.join(map(str, cell))} would write over {'/'.join(map(str, written[place]))}: name the volume, or the image, and the path with {{model}}, {{scenario}}, {{technique}} and {{seed}}"
                )
            written[place] = cell
    for (name, technique), model in product(matrix.techniques.items(), experiment.models if experiment.kaito else []):
        if technique.adapter and technique.adapter.type == "lora":
            preset_of(experiment.kaito, model, matrix.models[model], "kaito")
            if technique.adapter.options.use_dora and experiment.kaito.runtime == "vllm":
                raise UserError(f"kaito.runtime: vllm takes no DoRA adapter such as that of {name}: set transformers")


def kaito_recipe(matrix: Any, model: str, scenario: str, technique: str, seed: int) -> dict[str, Any]:
    """What the manifests of a run are made of."""
    found: KaitoTechnique = matrix.techniques[technique]
    training = matrix.training_recipe(model, technique, seed)
    preset = preset_of(found.platform, model, matrix.models[model], technique)
    return {
        "cell": [model, scenario, technique, seed],
        "training": {key: value for key, value in training.items() if key not in LOCAL},
        "platform": {**found.platform.model_dump(), "preset": preset},
        "batches": list(found.batches(training["batch_rows"])),
        "max_tokens": matrix.scenarios[scenario].max_tokens,
        "hub": matrix.models[model].hub,
    }


def serving_recipe(matrix: Any, model: str, scenario: str, technique: str, seed: int) -> dict[str, Any]:
    """What the manifest of serving a run's adapter is made of."""
    serving = matrix.experiment.kaito
    preset = preset_of(serving, model, matrix.models[model], "kaito")
    return {"cell": [model, scenario, technique, seed], "serving": {**serving.model_dump(), "preset": preset}}
