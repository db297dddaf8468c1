"""The runs of an experiment that Olive can train."""

from snaketune.config.technique import LINEAR_LAYERS
from snaketune.core.paths import run_path
from snaketune.dag.patterns import RESULTS
from snaketune.dag.recipes import Recipes
from snaketune.dag.targets import required
from snaketune.platforms.olive import olive_config


def projects(matrix: Recipes) -> list[str]:
    """Return the manifest of each AI Toolkit project, or end planning with the reasons why there are none."""
    found, reasons = [], {}
    for model, scenario, technique, seed in matrix.cells:
        if technique != "base":
            layers = set(LINEAR_LAYERS.get(matrix.families[model], []))
            reasons[technique] = olive_config.refusal(matrix.training_recipe(model, technique, seed), layers)
            if not reasons[technique]:
                found.append(f"{RESULTS}/{run_path(model, scenario, technique, seed)}/ai-toolkit/manifest.json")
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return required(found, f"Olive can train no run of this experiment: {why}")
