"""What a person sees of a run: a line for each job that ended and one line for those that run.

Snakemake's own messages go to its log in `.snakemake/log/`, and to the terminal instead of these with `--verbose`,
`--printshellcmds`, `--debug-dag`, `--quiet` or `--logger`.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from snakemake.logging import ColorizingTextHandler, get_event, logger
from snakemake_interface_logger_plugins.common import LogEvent

from snaketune.core.errors import is_users_mistake
from snaketune.dag.planned import table
from snaketune.dag.process import runs_here
from snaketune.dag.remaining import Remaining, duration
from snaketune.dag.running import Running
from snaketune.reporting.result_table import results_table

# Seconds without a line after which a file or pipe gets one about what runs; in a terminal one line is kept up to date.
INTERVAL = 60
COLORS = {logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31m", logging.WARNING: "\033[33m"}
HIDDEN = {
    *(LogEvent.SHELLCMD, LogEvent.PROGRESS, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED, LogEvent.WORKFLOW_STARTED),
    *(LogEvent.GROUP_INFO, LogEvent.GROUP_ERROR, LogEvent.RULEGRAPH, LogEvent.RUN_INFO),
}
# Of Snakemake 9, and said here in other words or in its log.
NOISE = re.compile(
    r"host: |Building DAG|Using shell|Conda environments|Singularity containers|Select jobs|Execute \d+ jobs|Complete log|"
    r"Elapsed time|Exiting because a job|At least one job did not|Reasons:|This was a dry-run|Some jobs were triggered|"
    r"Rules with provenance|WorkflowError:\nAt least one job|Removing output files of failed|Shell command: |"
    r"Shutting down, this might|RuleException:\nCalledProcessError"
)
# Set for jobs: a training then writes to its log alone.
SHOWN = "SNAKETUNE_TERMINAL"


def reason_in(path: Path) -> list[str]:
    """Return why a job failed, by its log: the user's mistake, or the last lines."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
    told = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not told or not is_users_mistake("\n".join(lines)):
        return lines[-8:]
    # Behind the message of a rank stands torchrun's own.
    after = (number for number in range(told[-1] + 1, len(lines)) if not lines[number].startswith((" ", "\t")))
    return lines[told[-1] : next(after, len(lines))]


class Terminal(logging.Handler):
    """Takes the place of Snakemake's handler for the terminal."""

    def __init__(self, workflow: Any, replaced: ColorizingTextHandler):
        super().__init__()
        self.workflow, self.stream = workflow, replaced.stream
        self.colored = not replaced.nocolor
        self.live = replaced.is_tty and os.environ.get("TERM") != "dumb"
        self.running: dict[int, Running] = {}
        self.failed: dict[int, tuple[str, str, list[str]]] = {}
        self.done, self.total, self.left = 0, 0, ""
        self.ran: dict[str, list[str]] = {}
        self.rule_of: dict[int, str] = {}
        self.remaining: Remaining | None = None
        self.ended, self.said = threading.Event(), time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            for text in self.told(record):
                if text:
                    self.say(text, COLORS.get(record.levelno, ""), getattr(record, "stream", self.stream))
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def say(self, text: str, color: str = "", stream: TextIO | None = None) -> None:
        painted = f"{color}{text}\033[0m" if color and self.colored else text
        print("\r\033[K" if self.live else "", end="", file=self.stream, flush=True)
        print(painted, file=stream or self.stream)
        self.said = time.monotonic()
        self.show()

    def told(self, record: logging.LogRecord) -> Iterator[str]:
        """Yield what to print about a record."""
        event, said = get_event(record), record.__dict__
        if event == LogEvent.RUN_INFO and not self.total:
            # Of those that have words: `all` only names files.
            self.total = sum(bool(job.message or job.output) for job in self.workflow.dag.needrun_jobs())
            if self.workflow.dryrun:
                yield table(list(self.plan()))
        elif event == LogEvent.JOB_INFO:
            self.start(said)
        elif event == LogEvent.JOB_FINISHED:
            yield self.finish(said["job_id"])
        elif event == LogEvent.JOB_ERROR:
            yield self.fail(said)
        elif event not in HIDDEN and event != LogEvent.DEBUG_DAG:
            text = str(record.msg or "").strip()
            if text.startswith("Error: Directory cannot be locked. Another"):  # of a dry run, as information
                text = "Another run is at work here, or one was killed (then: `snakemake --unlock`)."
            yield "" if NOISE.match(text) else text

    def plan(self) -> Iterator[tuple[str, Any]]:
        dag = self.workflow.dag
        for level in dag.toposorted(set(dag.needrun_jobs())):
            for job in sorted(level, key=str):
                if job.output or len(dag) == 1:
                    yield job.rule.name, dag.reason(job)

    def start(self, said: dict[str, Any]) -> None:
        if self.workflow.dryrun:
            return
        if self.remaining is None:
            cores = self.workflow.global_resources["_cores"].value if runs_here(self.workflow) else 0
            self.remaining = Remaining(self.workflow.dag.needrun_jobs() if cores else [], cores or 1)
            threading.Thread(target=self.keep_showing, daemon=True).start()
        # A rule that only names files has no words.
        words = said["rule_msg"] or (said["rule_name"] if said["output"] else "")
        self.running[said["jobid"]] = Running(words, said["log"], time.time())
        self.rule_of[said["jobid"]] = said["rule_name"]
        self.show()

    def finish(self, number: int) -> str:
        self.failed.pop(number, None)
        job = self.running.pop(number, Running("", [], time.time()))
        self.done += bool(job.words)
        took = time.time() - job.began
        if self.remaining:
            self.remaining.finished(number, took)
        self.ran[self.rule_of.get(number, "")] = job.log
        width = len(str(self.total))
        return f"{self.done:>{width}}/{self.total}  {duration(took):>11}  {job.words}" if job.words else ""

    def fail(self, said: dict[str, Any]) -> str:
        job = self.running.pop(said["jobid"], Running(said["rule_name"], said["log"], time.time()))
        logs = [path for path in said["log"] if Path(path).is_file()] or said["log"]
        why = next((found for path in logs if (found := reason_in(Path(path)))), [])
        why = why or [said["rule_msg"] or "it printed nothing; --printshellcmds shows its command"]
        name = job.words or said["rule_name"]
        self.failed[said["jobid"]] = name, ", ".join(logs), why
        status = f" ({said['rule_msg']})" if said["rule_msg"] else ""
        return f"failed after {duration(time.time() - job.began)}: {name}{status}"

    def keep_showing(self) -> None:
        while not self.ended.wait(1):
            self.acquire()
            try:
                due = time.monotonic() - self.said >= INTERVAL
                if self.running and self.remaining and (self.live or due):
                    now = time.time()
                    self.left = self.remaining.told(
                        {number: now - job.began for number, job in self.running.items()},
                        {number: job.seconds_left() for number, job in self.running.items()},
                    )
                    if self.live:
                        self.show()
                    else:
                        self.say(self.status())
            finally:
                self.release()

    def status(self, width: int = 1000) -> str:
        """Return the line about the workflow and what trains; with less about the workflow if that doesn't fit."""
        jobs = sorted(self.running.values(), key=lambda job: job.began)
        lines = [line for line in (job.last_line() for job in jobs) if line]
        what = " | ".join(lines) or next((job.words for job in jobs if job.words), "")
        counts = [f"{self.done} of {self.total} done", f"{len(self.running)} running", self.left]
        full = f"{', '.join(filter(None, counts))} | {what}"
        short = f"{self.done}/{self.total}, {self.left or counts[1]} | {what}"
        return full if len(full) < width else short[: width - 1]

    def show(self) -> None:
        """Replace the last line of a terminal by what runs now."""
        if self.live and self.running and not self.ended.is_set():
            width = os.get_terminal_size(self.stream.fileno()).columns or 80
            self.stream.write(f"\r\033[K{self.status(width)}")
        self.stream.flush()

    def close(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            if self.live and self.remaining:
                self.stream.write("\r\033[K")
                self.stream.flush()
        super().close()

    def tell_failures(self) -> None:
        """Name the jobs that failed, each with its reason and its log."""
        self.running.clear()
        for name, log, why in self.failed.values():
            logger.error("\n".join([f"\n{name} failed:", *(f"  {line}" for line in why), f"  log: {log}"]))

    def tell_results(self) -> None:
        """Show what was measured, and where it is, on standard output: a run piped to a file is its results."""
        self.running.clear()
        told = [Path(path).read_text().rstrip() for path in self.ran.get("collect_tuning", [])]
        if "write_report" in self.ran and not self.workflow.touch:
            benchmarked = any(rule.name == "benchmark_exports" for rule in self.workflow.rules)
            told.append(f"{results_table(Path('results'), benchmarked)}\n\nreport: results/report.html")
        for text in told:
            logger.info(text, extra={"stream": sys.stdout})


def installed() -> Terminal | None:
    return next((one for one in logger.handlers if isinstance(one, Terminal)), None)


def install(workflow: Any) -> None:
    """Let a person see jobs in plain words, unless an option, or a Snakefile whose module this is, has Snakemake's own messages."""
    settings, module = workflow.output_settings, not workflow.modifier.is_main_snakefile()
    own = settings.verbose or settings.debug_dag or settings.printshellcmds or settings.quiet or installed() or module
    default = next((one for one in logger.handlers if isinstance(one, ColorizingTextHandler)), None)
    # A cluster's jobs inherit it.
    os.environ.pop(SHOWN, None)
    if own or default is None or not workflow.is_main_process:
        return
    logger.removeHandler(default)
    logger.addHandler(Terminal(workflow, default))
    os.environ[SHOWN] = "1"


def tell(succeeded: bool) -> None:
    """Say at the end of a run what came of it."""
    if terminal := installed():
        (terminal.tell_results if succeeded else terminal.tell_failures)()
