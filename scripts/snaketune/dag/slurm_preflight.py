"""Check a SLURM cluster before a run submits anything: one message instead of a hundred failed jobs."""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import claim, need_space

RUN_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# The plugin's longest polling interval in seconds: SLURM must remember a finished job for longer.
SLOWEST_POLL = 180
LOGS = 16 * 2**20
PROBE_SECONDS = 30


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def words(answer: subprocess.CompletedProcess[str]) -> str:
    """Return the error message of a SLURM program on one line."""
    lines = re.sub(r"^\w+: (error: )?", "", answer.stderr, flags=re.MULTILINE).splitlines()
    return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip())) or f"exit code {answer.returncode}"


def prepare(jobs: Iterable[Any], settings: Any, directory: Path, log: Any) -> None:
    """Check everything that a run needs from SLURM, and cancel what a killed run left in ``directory``.

    Args:
        jobs: Snakemake's jobs and groups that are to be submitted.
        settings: the SLURM plugin's.

    Raises:
        UserError: SLURM is missing, refuses a request or doesn't share the directory, another
            Snakemake submits from it, or it has no file locks. Nothing was submitted.
    """
    if not shutil.which("sbatch"):
        raise UserError(
            "executor slurm: sbatch isn't installed here: run on a login node of your cluster, or use plain `snakemake` to run on this machine"
        )
    answer = call("scontrol", "show", "config")
    if answer.returncode:
        raise UserError(f"executor slurm: the controller doesn't answer ({words(answer)})")
    claim(
        Path("work/slurm"),
        f"another snakemake submits jobs from {directory}: wait until it finishes, or stop it with Ctrl-C",
    )
    from snaketune.dag import slurm_plugin_patch  # imports the plugin, which other executors needn't have

    slurm_plugin_patch.apply()
    choose_status_command(dict(re.findall(r"^(\w+) *= (.*)$", answer.stdout, re.MULTILINE)), settings, log)
    need_space(Path(settings.logdir or ".snakemake/slurm_logs"), LOGS, "storing job logs")
    asked = requests(jobs, settings, directory, log)
    answers = ((", ".join(rules), sbatch(request, "--test-only")) for request, rules in asked.items())
    if refused := [f"  {rules}: {words(answer)}" for rules, answer in answers if answer.returncode]:
        lines = "\n".join(dict.fromkeys(refused))
        raise UserError(
            f"SLURM would refuse these jobs, so nothing was submitted (wrong account, partition or resources?):\n{lines}"
        )
    cancel_orphans(settings.jobname_prefix, directory, log)
    if asked:
        # A full disk of the controller, or a limit, shows only if a job is submitted: a held one, then cancelled.
        answer = sbatch(next(iter(asked)), "--hold")
        if answer.returncode:
            raise UserError(f"SLURM accepts no jobs at present ({words(answer)}): ask its administrator, or wait")
        call("scancel", answer.stdout.strip().split(";")[0])
        prove_shared(directory, next(iter(asked)), log)


def choose_status_command(cluster: dict[str, str], settings: Any, log: Any) -> None:
    """Use squeue if SLURM keeps no accounts: sacct then never reports anything, with exit code 0 or 1."""
    if cluster.get("AccountingStorageType", "").endswith("/slurmdbd"):
        return
    age = int(re.sub(r"\D", "", cluster.get("MinJobAge", "")) or 0)
    if age <= SLOWEST_POLL:
        raise UserError(
            f"this SLURM has no accounting and forgets jobs {age} s after they end (MinJobAge), too soon to learn how they ended: ask its administrator to set MinJobAge to 300, or to start slurmdbd"
        )
    if settings.status_command != "squeue":
        settings.status_command = "squeue"
        log.info("This SLURM has no accounting: job states are read from squeue.")


def requests(jobs: Iterable[Any], settings: Any, directory: Path, log: Any) -> dict[str, list[str]]:
    """Return the distinct sbatch commands that the plugin would run, each with its rules."""
    from snakemake_executor_plugin_slurm.accounts import validate_account
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string
    from snakemake_interface_common.exceptions import WorkflowError

    found: dict[str, list[str]] = {}
    for job in jobs:
        account, partition = (job.resources.get(f"slurm_{name}") for name in ("account", "partition"))
        common = {
            "run_uuid": "snaketune_check",
            "slurm_logfile": "/dev/null",
            "comment_str": "check",
            "workdir": str(directory),
            "account": f"-A {shlex.quote(str(account))}" if account else "",
            "partition": f"-p {shlex.quote(str(partition))}" if partition else "",
        }
        request = get_submit_command(job, common, settings=settings) + set_gres_string(job)
        steps = "+".join(sorted({step.rule.name for step in job.jobs})) if job.is_group() else job.rule.name
        # Resources that depend on files still to be made are unknown yet.
        if "<TBD>" not in request and steps not in found.setdefault(request, []):
            found[request].append(steps)
    for account in {match[1] for request in found if (match := re.search(r" -A (\S+)", request))}:
        try:
            validate_account(account, log)
        except WorkflowError as error:
            raise UserError(f"slurm_account: {error}") from None
    return found


def sbatch(request: str, option: str) -> subprocess.CompletedProcess[str]:
    """Call a plugin's command with a job that does nothing."""
    return call(*shlex.split(request), option, "--wrap", "true")


def cancel_orphans(prefix: str, directory: Path, log: Any) -> None:
    """Cancel jobs that a killed Snakemake left here, and wait until they are gone: no file has two writers.

    Raises:
        UserError: they are still there after two minutes.
    """
    names = re.compile((f"{re.escape(prefix)}_" if prefix else "") + RUN_ID)
    orphans = [job for job, name, place in queue() if names.fullmatch(name) and place == str(directory)]
    if not orphans:
        return
    log.warning(f"Cancelling {len(orphans)} jobs left here by a killed run: {', '.join(orphans)}")
    call("scancel", *orphans)
    ends = time.monotonic() + 120
    while set(orphans) & {job for job, _, _ in queue()}:
        if time.monotonic() > ends:
            raise UserError(
                f"jobs left here by a killed run don't end: {', '.join(orphans)}; see `squeue --me`, and run snakemake again once they are gone"
            )
        time.sleep(1)


def queue() -> list[tuple[str, str, str]]:
    """Return id, name and directory of each of your own unfinished jobs.

    Raises:
        UserError: squeue fails, so it is unknown whether a job is gone.
    """
    answer = call("squeue", "--me", "--noheader", "--format", "%A|%j|%Z")
    if answer.returncode:
        raise UserError(f"executor slurm: squeue doesn't list your jobs ({words(answer)})")
    return [(job, name, place) for job, name, place in (line.split("|", 2) for line in answer.stdout.splitlines())]


def prove_shared(directory: Path, request: str, log: Any) -> None:
    """Check that a node sees a new file and this Python; a full cluster isn't waited for.

    Raises:
        UserError: the node doesn't see one of them.
    """
    chosen = re.findall(r" (?:-A|-p|-C) \S+", request)
    step = ["srun", "--quiet", "--ntasks=1", "--time=1", "--mem=50", "--chdir=/", f"--immediate={PROBE_SECONDS}"]
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".shared-") as token:
        # Exit code 3 comes from the node: srun itself fails with 1.
        look = 'test -e "$0" || { echo "$0"; exit 3; }; test -x "$1" || { echo "$1"; exit 3; }'
        answer = call(*step, *shlex.split(" ".join(chosen)), "sh", "-c", look, token.name, sys.executable)
    if answer.returncode == 3:
        raise UserError(
            f"a node can't see {Path(answer.stdout.strip()).parent}: work in a directory that all nodes share, with its .venv in it"
        )
    if answer.returncode:
        log.info(f"No node was free to check that it sees {directory} ({words(answer)}).")
