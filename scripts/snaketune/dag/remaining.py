"""How long a workflow will still take, by the `benchmark:` files of earlier runs and the jobs that have finished in this one."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

BENCHMARKS = Path("logs/benchmarks")


def seconds_in(path: Path) -> list[float]:
    """Return the seconds of a benchmark file, or nothing if there is none that can be read."""
    with suppress(OSError, ValueError, IndexError):
        return [float(path.read_text().splitlines()[1].split("\t")[0])]
    return []


def duration(seconds: float) -> str:
    """Write seconds as people say them: `7 s`, `1 min 12 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Remaining:
    """The jobs that are due; a job that never ran here is expected to take as long as others of its kind.

    Args:
        jobs: Snakemake's.
        cores: of this machine, as far as Snakemake may use them.
    """

    def __init__(self, jobs: Iterable[Any], cores: int):
        self.cores = cores
        self.due = {job.jobid: job for job in jobs}
        self.kind_of = {number: self._kind(job) for number, job in self.due.items()}
        found = {number: seconds_in(Path(job.benchmark)) for number, job in self.due.items() if job.benchmark}
        self.own = {number: seconds[0] for number, seconds in found.items() if seconds}
        self.seen: dict[str, list[float]] = defaultdict(list)
        for kind in sorted(set(self.kind_of.values())):
            for path in (BENCHMARKS / f"{kind}.tsv", *(BENCHMARKS / kind).rglob("*.tsv")):
                self.seen[kind] += seconds_in(path)

    @staticmethod
    def _kind(job: Any) -> str:
        path = Path(job.benchmark) if job.benchmark else Path(job.rule.name)
        return (
            path.relative_to(BENCHMARKS).parts[0].removesuffix(".tsv") if BENCHMARKS in path.parents else job.rule.name
        )

    def finished(self, number: int, seconds: float) -> None:
        if self.due.pop(number, None):
            self.seen[self.kind_of[number]].append(seconds)

    def told(self, running: dict[int, float]) -> str:
        """Return `about 3 min 10 s left`, `over …` if some jobs are of unknown length, or that it isn't known yet.

        Args:
            running: for each job that runs, the seconds since it started.
        """
        work, longest, unknown = 0.0, 0.0, False
        usual = {kind: fmean(seconds) for kind, seconds in self.seen.items() if seconds}
        for number, job in self.due.items():
            expected = self.own.get(number) or usual.get(self.kind_of[number])
            # Rules without an output only name files.
            unknown |= expected is None and bool(job.output)
            left = max((expected or 0) - running.get(number, 0), 0)
            work += left * min(job.threads, self.cores)
            longest = max(longest, left)
        left = max(work / self.cores, longest)
        if left < 1:
            return "time left not known yet" if unknown else ""
        return f"{'over' if unknown else 'about'} {duration(left)} left"
