"""The optional platforms that can train techniques. To add one, add it here and include its rules in the Snakefile."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from snaketune.config.export import Export
from snaketune.config.matrix import Platform
from snaketune.config.model import Model
from snaketune.config.scenario import Scenario
from snaketune.config.technique import Technique
from snaketune.dag.recipes import Recipes
from snaketune.platforms.hosted import jobs as hosted
from snaketune.platforms.hosted.technique import HostedTechnique
from snaketune.platforms.kaito import jobs as kaito
from snaketune.platforms.kaito.technique import KaitoTechnique

PLATFORMS = (Platform("service", HostedTechnique, hosted.check), Platform("platform", KaitoTechnique, kaito.check))
# Every kind of file in config/: the JSON Schemas are generated from these.
SCHEMAS: dict[str, type[BaseModel]] = {
    "experiment": kaito.Experiment,
    "technique": Technique,
    "hosted-technique": HostedTechnique,
    "kaito-technique": KaitoTechnique,
    "scenario": Scenario,
    "model": Model,
    "export": Export,
}


def read_matrix(
    config: dict[str, Any], root: Path, presets: Path | None = None, where: str = "config/config.yaml"
) -> Recipes:
    """Read an experiment that may use every platform; ``where`` says in messages what it was read from."""
    return Recipes(config, root, PLATFORMS, kaito.Experiment, presets, where)
