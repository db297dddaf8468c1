"""The AI Toolkit projects of an experiment, and the parameters of the job that writes one."""

from typing import Any

from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.core.file_digests import file_digest
from snaketune.core.paths import run_path
from snaketune.dag.job_params import JobParams
from snaketune.dag.patterns import RESULTS
from snaketune.dag.targets import required
from snaketune.platforms.olive import olive_config
from snaketune.platforms.olive.project import TEMPLATES


class AiToolkitParams(JobParams):
    def projects(self, wildcards: Any) -> list[str]:
        """Return the manifest of each run's project, or end planning with the reasons why there are none."""
        found, reasons = [], {}
        for model, scenario, technique, seed in self.matrix.cells:
            if technique != "base":
                recipe = self.matrix.training_recipe(model, technique, seed)
                reasons[technique] = olive_config.refusal(recipe, set(self._layers(model)))
                if not reasons[technique]:
                    found.append(f"{RESULTS}/{run_path(model, scenario, technique, seed)}/ai-toolkit/manifest.json")
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        return required(found, f"Olive can train no run of this experiment: {why}")

    def project(self, wildcards: Any) -> str:
        model, scenario = self.matrix.models[wildcards.model], self.matrix.scenarios[wildcards.scenario]
        seed = int(wildcards.seed)
        return self.encode(
            "write_ai_toolkit.py",
            cell=[wildcards.model, wildcards.scenario, wildcards.technique, seed],
            training=self.matrix.training_recipe(wildcards.model, wildcards.technique, seed),
            model=model.model_dump(include={"hub", "revision", "licence"}),
            scenario=scenario.model_dump(include={"max_tokens", "licence"}),
            layers=sorted(self._layers(wildcards.model)),
            description=self.matrix.techniques[wildcards.technique].description,
            templates=[file_digest(self.root / "report/ai_toolkit" / name) for name in TEMPLATES],
        )

    def _layers(self, model: str) -> list[str]:
        return LINEAR_LAYERS.get(self.matrix.families[model], [])
