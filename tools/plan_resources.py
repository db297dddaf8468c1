"""Show what the pending jobs would request, before any is submitted: a line per rule and technique.

Nothing runs and nothing is written. Memory is that of one job; it is an upper bound as long as rows are
not tokenized or a model is not fetched.
"""

import argparse
import logging
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from snakemake.cli import main as snakemake
from snakemake_interface_logger_plugins.common import LogEvent

COLUMNS = ("step", "jobs", "cores", "GPUs", "memory GB", "minutes", "core-hours", "GPU-hours")


@dataclass(frozen=True)
class Job:
    """A job's requests: memory in MB, run time in minutes."""

    rule: str
    technique: str
    cores: int
    gpus: int
    memory: int
    minutes: int

    @classmethod
    def of(cls, record: Any) -> "Job":
        """Read the record that Snakemake logs about a job."""
        asked = record.resources
        return cls(
            record.rule_name,
            record.wildcards.get("technique", ""),
            int(record.threads),
            int(asked.get("gpu", 0)),
            int(asked.get("mem_mb", 0)),
            int(asked.get("runtime", 0)),
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
        snakemake(["--dry-run", *arguments])
    except SystemExit as ended:
        return jobs, int(ended.code or 0)
    return jobs, 0


def hours(jobs: list[Job], kind: str) -> float:
    """Return the core-hours or GPU-hours of jobs; ``kind`` is `cores` or `gpus`."""
    return sum(getattr(job, kind) * job.minutes for job in jobs) / 60


def row(name: str, jobs: list[Job]) -> list[str]:
    """Return a line of the table: the largest request of each kind, and the sum of hours."""
    most = {kind: max(getattr(job, kind) for job in jobs) for kind in ("cores", "gpus", "memory", "minutes")}
    return [
        name,
        str(len(jobs)),
        str(most["cores"]),
        str(most["gpus"] or "–"),
        f"{most['memory'] / 1000:,.1f}",
        f"{most['minutes']:,}",
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
        alike = len({(job.cores, job.gpus, job.memory, job.minutes) for job in like}) == 1
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every argument is passed to Snakemake: targets, --configfile, --profile, --forceall.",
    )
    _, arguments = parser.parse_known_args()
    found, status = pending(arguments)
    # A rule that only collects files requests nothing.
    jobs = [job for job in found if job.minutes]
    if status:
        sys.exit(status)
    if not jobs:
        print("Nothing to do.")
        return
    print(table(jobs))
    print("\nMemory and minutes are the largest of a step's jobs; a retry requests more.")
    print("Minutes are time limits, at least twice what a job should take; hours are computed from them.")


if __name__ == "__main__":
    main()
