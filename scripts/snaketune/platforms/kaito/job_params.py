"""The parameters of jobs with a KAITO operator."""

import json
from typing import Any

from snaketune.dag.job_params import JobParams
from snaketune.platforms.kaito import jobs

# Settings of our own trainer; KAITO uses another.
LOCAL = {"engine", "threads", "world_size", "micro_batch_rows", "keep_weights", "platform"}


class KaitoParams(JobParams):
    def manifests(self, wildcards: Any) -> str:
        return self.encode("write_kaito.py", **self._tuning(wildcards))

    def platform(self, wildcards: Any) -> str:
        """Return parameters without a digest of code: other code must not train the same adapter again."""
        return json.dumps(self._tuning(wildcards))

    def received(self, wildcards: Any) -> str:
        tuning = self._tuning(wildcards)
        return self.encode(
            "receive_adapter.py",
            hub=tuning["hub"],
            options=tuning["training"]["adapter"]["options"],
            **self.matrix.merge_recipe(wildcards.technique),
        )

    def serving(self, wildcards: Any) -> str:
        serving = jobs.serving_of(self.matrix)
        assert serving
        preset = jobs.preset_of(serving, wildcards.model, self.matrix.models[wildcards.model], "kaito")
        placed = {**serving.model_dump(), "preset": preset}
        return self.encode("serve_on_kaito.py", "publish", cell=_cell(wildcards), serving=placed)

    def _tuning(self, wildcards: Any) -> dict[str, Any]:
        model, scenario, technique, seed = cell = _cell(wildcards)
        found, training = jobs.techniques(self.matrix)[technique], self.matrix.training_recipe(model, technique, seed)
        preset = jobs.preset_of(found.platform, model, self.matrix.models[model], technique)
        return {
            "cell": cell,
            "training": {key: value for key, value in training.items() if key not in LOCAL},
            "platform": {**found.platform.model_dump(), "preset": preset},
            "batches": found.batches(training["batch_rows"]),
            "max_tokens": self.matrix.scenarios[scenario].max_tokens,
            "hub": self.matrix.models[model].hub,
        }


def _cell(wildcards: Any) -> tuple[str, str, str, int]:
    return wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed)
