"""Patch the SLURM plugin 2.8, the newest release: it waits forever for jobs in two states.

`sacct` reports a cancelled job as "CANCELLED by UID", but the plugin compares with "CANCELLED". And
the plugin leaves preempted jobs to SLURM to restart, which `slurm-no-requeue` forbids. No setting
avoids either; drop this file once a release does. The plugin is pinned in envs/workflow.
"""

from typing import Any

import snakemake_executor_plugin_slurm as plugin

_query = plugin.query_job_status


async def _query_final_states(command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
    states, seconds = await _query(command, logger)
    final = {"PREEMPTED": "CANCELLED"}
    return states and {job: final.get(state, state.split(" by ")[0]) for job, state in states.items()}, seconds


def apply() -> None:
    """Replace the plugin's query of job states; applying it again changes nothing."""
    plugin.query_job_status = _query_final_states
