"""The parameters of jobs at hosted services."""

from typing import Any

from snaketune.dag.job_params import JobParams
from snaketune.platforms.hosted import jobs


class HostedParams(JobParams):
    def rows(self, wildcards: Any) -> str:
        limits = jobs.techniques(self.matrix)[wildcards.technique].limits.model_dump()
        return self.encode("convert_hosted.py", limits=limits)

    def submission(self, wildcards: Any) -> str:
        return self._of_job("submit_hosted.py", wildcards)

    def plan(self, wildcards: Any) -> str:
        return self._of_job("submit_hosted.py", wildcards, **jobs.price_params(self.matrix, wildcards.technique))

    def wait(self, wildcards: Any) -> str:
        return self._of_job("wait_hosted.py", wildcards)

    def fetch(self, wildcards: Any) -> str:
        return self._of_job("fetch_hosted.py", wildcards)

    def asking(self, wildcards: Any) -> str:
        asked = jobs.asking_params(self.matrix, wildcards.scenario, wildcards.technique)
        return self.encode("ask_hosted.py", "publish", **asked)

    def scoring(self, wildcards: Any) -> str:
        return self.encode("score_hosted.py", task=self.matrix.scenarios[wildcards.scenario].task)

    def _of_job(self, script: str, wildcards: Any, **values: Any) -> str:
        asked = jobs.training_params(self.matrix, wildcards.technique, int(wildcards.seed))
        return self.encode(script, "publish", **asked, **values)
