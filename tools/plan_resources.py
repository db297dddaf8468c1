"""Show what the pending jobs would need, before anything is submitted or downloaded: one line per rule and technique.

Nothing runs and nothing is written. Memory and minutes are per job, disk and hours are for all jobs. Memory, disk and the
time limits are upper bounds until rows are tokenized and models fetched. Below the table: what doesn't fit, and which
settings would make it fit.
"""

import argparse
import logging
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from snakemake.cli import main as snakemake
from snakemake.iocontainers import Wildcards
from snakemake_interface_logger_plugins.common import LogEvent

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import gpus
from snaketune.core.errors import UserError, run
from snaketune.dag.durations import expected_seconds, in_all
from snaketune.dag.process import runs_here
from snaketune.dag.resources import SNAKEMAKES, JobResources, is_training
from snaketune.provenance.snakemake_records import snakefile

COLUMNS = (
    "step", "jobs", "cores", "GPUs", "memory GB", "GPU GB", "disk GB", "expected min", "limit min", "core-hours", "GPU-hours"
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A job's requests: memory in MB, its time limit in minutes, and the minutes that it is expected to take. Disk is what it leaves there, and what it needs beside."""

    rule: str
    wildcards: Any
    cores: int
    gpus: int
    memory: int
    gpu_memory: float
    limit: int
    expected: float
    kept: float
    aside: float

    @classmethod
    def of(cls, record: Any) -> "Job":
        """Read the record that Snakemake logs about a job."""
        asked, wildcards, needs = record.resources, Wildcards(fromdict=record.wildcards), JobResources.read
        count = int(asked.get("gpu", 0))
        kept, aside = (one / 1e6 for one in needs.disk_bytes(record.rule_name, wildcards))
        return cls(
            record.rule_name,
            wildcards,
            int(record.threads),
            count,
            int(asked.get("mem_mb", 0)),
            needs.gpu_bytes(record.rule_name, wildcards) / 1e6 if count else 0,
            int(asked.get("runtime", 0)),
            expected_seconds(needs, record.rule_name, wildcards) / 60,
            kept,
            aside,
        )

    @property
    def technique(self) -> str:
        return str(self.wildcards.get("technique", ""))

    @property
    def model(self) -> str:
        return str(self.wildcards.get("model", ""))

    @property
    def requests(self) -> tuple[float, ...]:
        return (self.cores, self.gpus, self.memory, self.gpu_memory, self.limit, self.kept)


@dataclass(frozen=True)
class Machine:
    """What a machine has, in MB; infinite where that isn't known."""

    memory: float
    gpu_memory: float
    disk: float

    @classmethod
    def of(cls, given: argparse.Namespace) -> "Machine":
        """Return what the arguments say, else what this machine has, if jobs run here."""
        unknown = float("inf")
        here = runs_here(JobResources.read.workflow)
        gpu_memory = gpus.memory_bytes() / 1e6 if here else unknown
        place = Path("results") if Path("results").exists() else Path()
        return cls(
            given.memory * 1000 if given.memory else psutil.virtual_memory().total / 1e6 if here else unknown,
            given.gpu_memory * 1000 if given.gpu_memory else gpu_memory,
            given.disk * 1000 if given.disk else shutil.disk_usage(place).free / 1e6,
        )


def pending(arguments: list[str]) -> tuple[list[Job], int]:
    """Return the jobs of a dry run and Snakemake's exit status; only its warnings and errors are shown."""
    jobs: list[Job] = []

    def collect(record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            jobs.append(Job.of(record))
        return record.levelno >= logging.WARNING

    logging.getLogger("snakemake.logging").addFilter(collect)
    try:
        snakemake([*snakefile(), "--dry-run", *arguments])
    except SystemExit as ended:
        return jobs, int(ended.code or 0)
    return jobs, 0


def hours(jobs: list[Job], kind: str) -> float:
    """Return the expected core-hours or GPU-hours of jobs; ``kind`` is `cores` or `gpus`."""
    return sum(getattr(job, kind) * job.expected for job in jobs) / 60


def gigabytes(megabytes: float) -> str:
    return f"{megabytes / 1000:,.1f}"


def disk(jobs: list[Job]) -> float:
    """Return the MB that all files take, with those that one job has beside them while it runs."""
    return sum(job.kept for job in jobs) + max(job.aside for job in jobs)


def row(name: str, jobs: list[Job]) -> list[str]:
    """Return a line of the table: the largest request of each kind, and the sums of disk and hours."""
    most = {
        kind: max(getattr(job, kind) for job in jobs)
        for kind in ("cores", "gpus", "memory", "gpu_memory", "expected", "limit")
    }
    return [
        name,
        str(len(jobs)),
        str(most["cores"]),
        str(most["gpus"] or "–"),
        gigabytes(most["memory"]),
        gigabytes(most["gpu_memory"]) if most["gpus"] else "–",
        gigabytes(disk(jobs)),
        f"{most['expected']:,.1f}",
        f"{most['limit']:,}",
        f"{hours(jobs, 'cores'):,.1f}",
        f"{hours(jobs, 'gpus'):,.1f}" if most["gpus"] else "–",
    ]


def steps(jobs: list[Job]) -> dict[str, list[Job]]:
    """Group jobs by rule, or by rule and technique if a rule's jobs request different resources."""
    rules: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        rules[job.rule].append(job)
    found: dict[str, list[Job]] = defaultdict(list)
    for rule, like in rules.items():
        alike = len({job.requests for job in like}) == 1
        for job in like:
            found[rule if alike else f"{rule} {job.technique}".strip()].append(job)
    return found


def table(jobs: list[Job]) -> str:
    """Return aligned lines in the order of the DAG, and a last line for all jobs."""
    rows = [list(COLUMNS), *(row(name, like) for name, like in steps(jobs).items()), row("all", jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *figures in rows:
        aligned = (cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *aligned]))
    return "\n".join(lines)


def settings(job: Job, limit: float) -> str:
    """Return what makes a training fit ``limit`` MB, as a sentence."""
    # A job also asks for Snakemake's own memory, but not of a GPU.
    own = 0 if job.gpus else SNAKEMAKES
    found = JobResources.read.fitting(job.wildcards, (limit - own) * 1e6)
    if not found:
        return "No setting makes it fit: use a smaller model or technique, or another machine."
    change, needed = found
    keys = ", ".join(f"`{key}: {str(value).lower()}`" for key, value in change.items())
    return f"With {keys} in config/techniques/{job.technique}.yaml it takes {gigabytes(needed / 1e6 + own)} GB."


def worst(jobs: list[Job], kind: str, limit: float) -> list[Job]:
    """Return the largest job of each step, model and (if it trains) technique that needs more than ``limit`` MB."""
    found: dict[tuple[str, str, str], Job] = {}
    for job in sorted(jobs, key=lambda one: float(getattr(one, kind))):
        if getattr(job, kind) > limit:
            found[job.rule, job.model, job.technique if is_training(job.rule) else ""] = job
    return list(found.values())


def too_large(jobs: list[Job], machine: Machine) -> list[str]:
    """Return what needs more than the machine has, and what would make it fit, in sentences."""
    found = JobResources.read.short_of_gpus((job.rule, job.wildcards) for job in jobs)
    for kind, limit, what in (
        ("gpu_memory", machine.gpu_memory, "memory on a GPU"),
        ("memory", machine.memory, "memory"),
    ):
        others = []
        for job in worst(jobs, kind, limit):
            asked = gigabytes(getattr(job, kind))
            if is_training(job.rule) and (kind == "gpu_memory") == bool(job.gpus):
                found.append(
                    f"Training {job.technique} of {job.model} needs {asked} GB of {what}; {gigabytes(limit)} are available. {settings(job, limit)}"
                )
            else:
                others.append(f"{job.rule} of {job.model or 'the results'} {asked} GB")
        if others:
            found.append(
                f"More {what} than the {gigabytes(limit)} GB available: {', '.join(others)}. Run these steps on a larger machine, or use a smaller model."
            )
    if (needed := disk(jobs)) > machine.disk:
        found.append(
            f"All files take {gigabytes(needed)} GB of disk; {gigabytes(machine.disk)} are free. Fewer `precisions` or techniques take less, and `keep_intermediates: false` deletes merged models and fp32 exports after use."
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every other argument is passed to Snakemake: targets, --configfile, --profile, --forceall, --resources gpu=1.",
    )
    for name, what in (("memory", "host memory"), ("gpu-memory", "memory of each GPU"), ("disk", "free disk")):
        parser.add_argument(f"--{name}", type=float, metavar="GB", help=f"{what}; by default this machine's")
    given, arguments = parser.parse_known_args()
    found, status = pending(arguments)
    # A rule that only collects files requests nothing.
    jobs = [job for job in found if job.limit]
    if status:
        sys.exit(status)
    if not jobs:
        print("Nothing to do.")
        return
    if given.gpu_memory and not JobResources.read.counts_gpus:
        raise UserError(
            "--gpu-memory is given, but no job gets a GPU: add --resources gpu=1 (the number of GPUs), or a profile that counts them"
        )
    print(table(jobs), end="\n\n")
    if runs_here(JobResources.read.workflow):
        cores = min(int(JobResources.read.workflow.cores or 1), psutil.cpu_count() or 1)
        trained = [job.wildcards for job in jobs if is_training(job.rule) and "scenario" in job.wildcards.keys()]  # noqa: SIM118
        known = all(JobResources.read.sizes.tokenized(one.model, one.scenario) for one in trained)
        print(in_all([(job.cores, job.expected) for job in jobs], cores, known))
    print("Memory and minutes are those of a step's largest job, disk and (expected) hours those of all its jobs.")
    print("A limit is when a cluster would stop the job, far above the expected minutes; a retry requests more.")
    if large := too_large(jobs, Machine.of(given)):
        print("", *large, sep="\n")


if __name__ == "__main__":
    run(main)
