"""Set up Snakemake's own process before its jobs start."""

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from snakemake.exceptions import WorkflowError
from snakemake.jobs import GroupJob, Job
from snakemake.logging import logger
from snakemake.utils import update_config

from snaketune.config import trackers
from snaketune.core import gpus
from snaketune.core.errors import UserError, is_users_mistake
from snaketune.core.files import prefer_programs_of, read_yaml
from snaketune.dag import slurm_preflight
from snaketune.dag.resources import JobResources


def set_up(workflow: Any, root: Path) -> None:
    """Let jobs find the checkout at ``root`` and this environment's programs, and hear SLURM's warning.

    And fail at once: Snakemake would try a job again as often as `retries` says, whatever is wrong with it.
    """
    os.environ["SNAKETUNE"] = str(root)
    signal.signal(signal.SIGUSR1, _pass_on)
    # Snakemake has no setting for this: it asks a failed job how often it may be tried.
    Job.restart_times = GroupJob.restart_times = property(_restarts)
    _count_gpus(workflow)
    if not _own_environments(workflow):
        prefer_programs_of(Path(sys.executable).parent)
        # Tests have servers of their own, of all scripts (dag/shared_imports.py).
        if forks := os.environ.get("SNAKETUNE_FORK_SERVER"):
            prefer_programs_of(Path(forks) / "bin")


def _own_environments(workflow: Any) -> bool:
    """Return True if jobs run in other environments than this one: conda's, with programs of their own."""
    return any(str(method).endswith("conda") for method in workflow.deployment_settings.deployment_method)


def check_trackers(workflow: Any, names: Sequence[str]) -> None:
    """Raise a UserError, before anything is trained, if a tracker isn't installed where jobs run."""
    if not _own_environments(workflow):
        trackers.require(names)


def runs_here(workflow: Any) -> bool:
    """Return True if jobs run on this machine: a cluster's profile sets `jobs` and no cores, of which a dry run then has one.

    The executor isn't known yet while rules are read, and `-j` beside the `cores` of a profile sets both.
    """
    settings = workflow.resource_settings
    return settings.nodes is None or (settings.cores or 1) > 1


def _count_gpus(workflow: Any) -> None:
    """Let no two jobs of this machine share a GPU: count them, unless --resources or the profile says how many.

    A job that asks for none sees none: it merges, exports or measures on the CPU, as on a node without GPUs.
    """
    if not workflow.is_main_process or not runs_here(workflow):
        return
    found = gpus.gpus()
    if "gpu" in workflow.global_resources:
        count = int(workflow.global_resources["gpu"].value)
        found = (found or [str(number) for number in range(count)])[:count]
    elif found:
        workflow.register_resource("gpu", len(found))
    if "gpu" in workflow.global_resources:
        os.environ |= {gpus.GPUS: ",".join(found), gpus.VISIBLE: ""}


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Send a signal to every process below this one: SLURM warns only the first process of a job, or all of them."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.send_signal(number)


def _restarts(job: Job | GroupJob) -> int:
    """Return how often a failed job may be tried again: not at all if its log ends with a user's mistake."""
    parts = job.jobs if isinstance(job, GroupJob) else [job]
    began = psutil.Process().create_time()
    # An older log is of a Snakemake before this one.
    logs = [p for part in parts for p in map(Path, part.log) if p.is_file() and p.stat().st_mtime > began]
    mistaken = any(is_users_mistake(path.read_text(errors="replace")) for path in logs)
    return 0 if mistaken else max(part.rule.restart_times for part in parts)


def experiment(workflow: Any, config: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the experiment of the working directory: in a project apart, over that of the checkout at ``root``.

    Raises:
        UserError: a project says nothing, or the module that this is has a prefix.
    """
    if workflow.modifier.path_modifier.replace_prefix("results/") != "results/":
        raise UserError(
            "module: prefix and replace_prefix would move only some of its files: leave them out, and give each experiment its own directory"
        )
    if root.samefile(Path()) or workflow.config_settings.replace_workflow_config:
        return config
    if not config:
        raise UserError(
            f"{Path('config/config.yaml').absolute()}: no such file: create it with what differs from {root}/config/config.yaml, or give a --configfile"
        )
    found: dict[str, Any] = read_yaml(root / "config/config.yaml")
    update_config(found, config)
    return found


def sources(workflow: Any) -> str:
    """Return what an experiment's keys are read from: `config/config.yaml, mine.yaml or --config`."""
    given = [os.path.relpath(path) for path in workflow.overwrite_configfiles or []]
    settings = workflow.config_settings
    default = [] if given and settings.replace_workflow_config else ["config/config.yaml"]
    read = list(dict.fromkeys([*default, *given, *(["--config"] if settings.config else [])]))
    return " or ".join(filter(None, [", ".join(read[:-1]), read[-1]]))


def check_config_files(paths: Iterable[str | Path]) -> None:
    """Raise a UserError if a file of --configfile has a key twice: Snakemake takes the last."""
    for path in map(Path, paths):
        if path.suffix != ".json":
            read_yaml(path)


def warn_of_machine(workflow: Any) -> None:
    """Say which of the jobs that are due need more memory or GPUs than there are: Snakemake starts them all the same."""
    for sentence in JobResources.read.short_of_gpus(
        (job.rule.name, job.wildcards) for job in workflow.dag.needrun_jobs()
    ):
        logger.warning(sentence)
    if not runs_here(workflow):
        return
    there = psutil.virtual_memory().total / 1e6
    due = [(job.rule.name, job.resources.get("mem_mb", 0)) for job in workflow.dag.needrun_jobs()]
    large = dict(sorted((name, needed) for name, needed in due if isinstance(needed, int) and needed > there))
    if large:
        names = ", ".join(f"{name} ({needed / 1000:.1f} GB)" for name, needed in large.items())
        logger.warning(
            f"More memory than the {there / 1000:.1f} GB of this machine: {names}. `make plan` shows what would make them fit."
        )


def prepare_cluster(workflow: Any) -> None:
    """Check, before anything is submitted to SLURM, what the jobs that are due ask of it."""
    if workflow.executor_plugin.name != "slurm":
        return
    dag = workflow.dag
    jobs = dict.fromkeys(dag.get_job_group(job) or job for job in dag.needrun_jobs() if not job.is_local)
    try:
        slurm_preflight.prepare(jobs, workflow.executor_settings, Path(workflow.workdir_init), logger)
    except UserError as error:
        raise WorkflowError(str(error)) from None
