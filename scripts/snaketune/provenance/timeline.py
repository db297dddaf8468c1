"""When the jobs of the last run of the workflow ran, from Snakemake's own records."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.provenance.snakemake_records import snakemake_record

Jobs = list[dict[str, Any]]
# Without a job for this long, what follows belongs to another run.
PAUSE_SECONDS = 600
# They end after the report is written, so their records are those of the run before.
LATER = {"write_report", "record_results"}


def made_from(paths: Iterable[Path]) -> set[Path]:
    """Return these files and all that they were made from, according to the records: another experiment's are left out."""
    found, left = set[Path](), list(paths)
    while left:
        if (path := left.pop()) not in found:
            found.add(path)
            with suppress(UserError):
                left.extend(map(Path, snakemake_record(path)["input"] or ()))
    return found


def jobs_of(paths: Iterable[Path]) -> Jobs:
    """Return the recorded jobs that made these files, by their start; a job is named by its log."""
    found = {}
    for path in paths:
        with suppress(UserError):
            record = snakemake_record(path)
            if record["rule"] not in LATER and record["endtime"] and record["log"]:
                job = record["log"][0].removeprefix("logs/").removesuffix(".log")
                found[job] = {
                    "job": job,
                    "rule": record["rule"],
                    "start": record["starttime"],
                    "end": record["endtime"],
                }
    return sorted(found.values(), key=lambda one: (one["start"], one["job"]))


def last_run(jobs: Jobs) -> tuple[Jobs, Jobs]:
    """Return the jobs of the last run, in lanes and in seconds since it started, and those made before, as recorded."""
    first, until = 0, 0.0
    for number, one in enumerate(jobs):
        first = number if one["start"] > until + PAUSE_SECONDS else first
        until = max(until, one["end"])
    lanes, found = list[float](), Jobs()
    for one in jobs[first:]:
        lane = next((n for n, busy in enumerate(lanes) if busy <= one["start"]), len(lanes))
        lanes[lane : lane + 1] = [one["end"]]
        start, end = (round(one[key] - jobs[first]["start"], 2) for key in ("start", "end"))
        found.append({**one, "start": start, "end": end, "seconds": round(end - start, 2), "lane": lane})
    return found, jobs[:first]
