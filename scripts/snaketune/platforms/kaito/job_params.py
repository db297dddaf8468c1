"""The parameters of jobs with a KAITO operator."""

import json
from typing import Any

from snaketune.dag.job_params import JobParams
from snaketune.platforms.kaito import jobs


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
        return self.encode("serve_on_kaito.py", "publish", **jobs.serving_params(self.matrix, *_cell(wildcards)))

    def _tuning(self, wildcards: Any) -> dict[str, Any]:
        return jobs.tuning_params(self.matrix, *_cell(wildcards))


def _cell(wildcards: Any) -> tuple[str, str, str, int]:
    return wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed)
