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
            for path in (Path(f"{kind}.tsv"), *Path(kind).rglob("*.tsv")):
                self.seen[kind] += seconds_in(path)

    @staticmethod
    def _kind(job: Any) -> str:
        """Return the directory of the benchmarks of a rule, model and scenario: others take as long as they like."""
        parts = Path((job.benchmark or f"{BENCHMARKS}/{job.rule.name}").removesuffix(".tsv")).parts
        # Of the rules that export, `run` is /scenario/technique/seed.
        names = {job.wildcards.get(key, "").strip("/").split("/")[0] for key in ("model", "scenario", "run")}
        last = max((n for n, part in enumerate(parts) if part in names), default=len(BENCHMARKS.parts))
        return str(Path(*parts[: last + 1]))

    def finished(self, number: int, seconds: float) -> None:
        if self.due.pop(number, None):
            self.seen[self.kind_of[number]].append(seconds)

    def told(self, running: dict[int, float], trained: dict[int, float] | None = None) -> str:
        """Return `about 3 min 10 s left`, `over …` if some jobs are of unknown length, or that it isn't known yet.

        Args:
            running: for each job that runs, the seconds since it started.
            trained: of each training that has said so, the seconds until its last step: it takes at least those.
        """
        work, longest, unknown = 0.0, 0.0, False
        usual = {kind: fmean(seconds) for kind, seconds in self.seen.items() if seconds}
        for number, job in self.due.items():
            expected = self.own.get(number) or usual.get(self.kind_of[number])
            left = max((expected or 0) - running.get(number, 0), (trained or {}).get(number, 0))
            # Rules without an output only name files. What takes longer than expected isn't known either.
            unknown |= left <= 0 and bool(job.output)
            work += left * min(job.threads, self.cores)
            longest = max(longest, left)
        left = max(work / self.cores, longest)
        if left < 1:
            return "time left not known yet" if unknown else ""
        return f"{'over' if unknown else 'about'} {duration(left)} left"
