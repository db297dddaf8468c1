"""The parameters of jobs at hosted services."""

from typing import Any

from snaketune.dag.job_params import JobParams
from snaketune.platforms.hosted.jobs import techniques

ANSWERING = {"endpoint", "untuned_endpoint", "deployment", "untuned_deployment", "untuned", "answer_limit"}


class HostedParams(JobParams):
    def rows(self, wildcards: Any) -> str:
        limits = techniques(self.matrix)[wildcards.technique].limits.model_dump()
        return self.encode("convert_hosted.py", limits=limits)

    def submission(self, wildcards: Any) -> str:
        return self._of_job("submit_hosted.py", wildcards)

    def plan(self, wildcards: Any) -> str:
        """Add what only the estimate needs: another price must not start another job."""
        found = techniques(self.matrix)[wildcards.technique]
        return self._of_job(
            "submit_hosted.py", wildcards, **found.model_dump(include={"price", "characters_per_token"})
        )

    def wait(self, wildcards: Any) -> str:
        return self._of_job("wait_hosted.py", wildcards)

    def fetch(self, wildcards: Any) -> str:
        return self._of_job("fetch_hosted.py", wildcards)

    def asking(self, wildcards: Any) -> str:
        service = techniques(self.matrix)[wildcards.technique].service.model_dump(exclude={"untuned"})
        limit = self.matrix.scenarios[wildcards.scenario].max_new_tokens
        return self.encode("ask_hosted.py", "publish", service=service, max_new_tokens=limit)

    def scoring(self, wildcards: Any) -> str:
        return self.encode("score_hosted.py", task=self.matrix.scenarios[wildcards.scenario].task)

    def _of_job(self, script: str, wildcards: Any, **values: Any) -> str:
        """Return what a hosted job is asked to do: not where it runs or who pays."""
        found = techniques(self.matrix)[wildcards.technique]
        return self.encode(
            script,
            "publish",
            **found.model_dump(include={"hyperparameters", "attempt"}),
            # Consent to send what our list of offers lacks must not start another job either.
            service=found.service.model_dump(exclude={*ANSWERING, "unlisted"}),
            epochs=self.matrix.experiment.training.epochs,
            seed=int(wildcards.seed),
            **values,
        )
