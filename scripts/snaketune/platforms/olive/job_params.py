"""The parameters of the job that writes an AI Toolkit project."""

from typing import Any

from snaketune.config.technique import LINEAR_LAYERS
from snaketune.core.file_digests import file_digest
from snaketune.dag.job_params import JobParams
from snaketune.platforms.olive.project import TEMPLATES


class AiToolkitParams(JobParams):
    def project(self, wildcards: Any) -> str:
        model, scenario = self.matrix.models[wildcards.model], self.matrix.scenarios[wildcards.scenario]
        seed = int(wildcards.seed)
        return self.encode(
            "write_ai_toolkit.py",
            cell=[wildcards.model, wildcards.scenario, wildcards.technique, seed],
            training=self.matrix.training_recipe(wildcards.model, wildcards.technique, seed),
            model=model.model_dump(include={"hub", "revision", "licence"}),
            scenario=scenario.model_dump(include={"max_tokens", "licence"}),
            layers=sorted(LINEAR_LAYERS.get(self.matrix.families[wildcards.model], [])),
            description=self.matrix.techniques[wildcards.technique].description,
            templates=[file_digest(self.root / "report/ai_toolkit" / name) for name in TEMPLATES],
        )
