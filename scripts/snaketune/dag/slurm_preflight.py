"""What is asked of SLURM before a run submits anything to it: one message instead of a hundred failed jobs."""

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
# The plugin asks at most this often, in seconds; a job that ends must stay known for longer.
SLOWEST_POLL = 180
LOGS = 16 * 2**20
PROBE_SECONDS = 30


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def words(answer: subprocess.CompletedProcess[str]) -> str:
    """What a SLURM program complains of, on one line."""
    lines = re.sub(r"^\w+: (error: )?", "", answer.stderr, flags=re.MULTILINE).splitlines()
    return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip())) or f"exit code {answer.returncode}"


def prepare(jobs: Iterable[Any], settings: Any, directory: Path, log: Any) -> None:
    """Check all that a run needs of SLURM, and cancel what a killed run left in ``directory``.

    ``jobs`` are Snakemake's jobs and groups that are to be submitted, ``settings`` the SLURM plugin's.

    Raises:
        UserError: SLURM isn't there, refuses a request, doesn't share the directory, or another
            Snakemake submits from it. Nothing was submitted.
    """
    if not shutil.which("sbatch"):
        raise UserError(
            "executor slurm: there is no sbatch here: run on a login node of your cluster, or plain `snakemake` for this machine alone"
        )
    answer = call("scontrol", "show", "config")
    if answer.returncode:
        raise UserError(f"executor slurm: the controller doesn't answer ({words(answer)})")
    try:
        claim(Path("work/slurm"))
    except UserError:
        raise UserError(
            f"another snakemake submits jobs from {directory}: wait until it is done, or end it with Ctrl-C"
        ) from None
    understand_ends()
    choose_status_command(dict(re.findall(r"^(\w+) *= (.*)$", answer.stdout, re.MULTILINE)), settings, log)
    need_space(Path(settings.logdir or ".snakemake/slurm_logs"), LOGS, "what jobs print")
    asked = requests(jobs, settings, directory, log)
    answers = ((", ".join(rules), test(request)) for request, rules in asked.items())
    refused = [f"  {rules}: {words(answer)}" for rules, answer in answers if answer.returncode]
    if refused:
        lines = "\n".join(dict.fromkeys(refused))
        raise UserError(f"SLURM would refuse jobs, so none was submitted (account, partition, resources?):\n{lines}")
    cancel_orphans(settings.jobname_prefix, directory, log)
    if asked:
        try_submission(next(iter(asked)))
        prove_shared(directory, next(iter(asked)), log)


def understand_ends() -> None:
    """Have the plugin (2.8) see what it waits for for ever: "CANCELLED by 0", as sacct says, and PREEMPTED.

    It leaves preempted jobs to SLURM, which may not start any again (``slurm-no-requeue``).
    """
    import snakemake_executor_plugin_slurm as plugin

    ask = plugin.query_job_status

    async def query(command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await ask(command, logger)
        over = {"PREEMPTED": "CANCELLED"}
        return states and {job: over.get(state, state.split(" by ")[0]) for job, state in states.items()}, seconds

    plugin.query_job_status = query


def choose_status_command(cluster: dict[str, str], settings: Any, log: Any) -> None:
    """Where SLURM keeps no accounts, sacct says nothing for ever, with exit code 0 or 1: squeue must be asked."""
    if cluster.get("AccountingStorageType", "").endswith("/slurmdbd"):
        return
    age = int(re.sub(r"\D", "", cluster.get("MinJobAge", "")) or 0)
    if age <= SLOWEST_POLL:
        raise UserError(
            f"this SLURM keeps no accounts and forgets a job {age} s after its end (MinJobAge), so nobody could know how it ended: its administrator must set MinJobAge to 300, or start slurmdbd"
        )
    if settings.status_command != "squeue":
        settings.status_command = "squeue"
        log.info("This SLURM keeps no accounts: squeue is asked how jobs ended.")


def requests(jobs: Iterable[Any], settings: Any, directory: Path, log: Any) -> dict[str, list[str]]:
    """The distinct calls of sbatch that the plugin would make, each with the rules that make it."""
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
        # What depends on files that are still to be made is known later.
        if "<TBD>" not in request and steps not in found.setdefault(request, []):
            found[request].append(steps)
    for account in {match[1] for request in found if (match := re.search(r" -A (\S+)", request))}:
        try:
            validate_account(account, log)
        except WorkflowError as error:
            raise UserError(f"slurm_account: {error}") from None
    return found


def test(request: str) -> subprocess.CompletedProcess[str]:
    return call(*shlex.split(request), "--test-only", "--wrap", "true")


def try_submission(request: str) -> None:
    """A job that is held and at once cancelled: a full disk of the controller, or a limit, shows only then."""
    answer = call(*shlex.split(request), "--hold", "--wrap", "true")
    if answer.returncode:
        raise UserError(f"SLURM takes no job at present ({words(answer)}): ask its administrator, or wait")
    call("scancel", answer.stdout.strip().split(";")[0])


def cancel_orphans(prefix: str, directory: Path, log: Any) -> None:
    """Cancel what a killed Snakemake left here, and wait until it is gone: no file has two writers.

    Raises:
        UserError: they live on after two minutes.
    """
    names = re.compile((f"{re.escape(prefix)}_" if prefix else "") + RUN_ID)
    orphans = [job for job, name, place in queue() if names.fullmatch(name) and place == str(directory)]
    if not orphans:
        return
    log.warning(f"Cancelling {len(orphans)} jobs that a killed run left here: {', '.join(orphans)}")
    call("scancel", *orphans)
    ends = time.monotonic() + 120
    while set(orphans) & {job for job, _, _ in queue()}:
        if time.monotonic() > ends:
            raise UserError(
                f"jobs that a killed run left here don't end: {', '.join(orphans)}; see `squeue --me`, and run snakemake again when they are gone"
            )
        time.sleep(1)


def queue() -> list[tuple[str, str, str]]:
    """Id, name and directory of each of one's own jobs that isn't over.

    Raises:
        UserError: squeue doesn't say: nobody could know whether a job is gone.
    """
    answer = call("squeue", "--me", "--noheader", "--format", "%A|%j|%Z")
    if answer.returncode:
        raise UserError(f"executor slurm: squeue doesn't tell of your jobs ({words(answer)})")
    return [(job, name, place) for job, name, place in (line.split("|", 2) for line in answer.stdout.splitlines())]


def prove_shared(directory: Path, request: str, log: Any) -> None:
    """Let a node look at a file made just now, and at this Python; a full cluster is not waited for.

    Raises:
        UserError: the node doesn't see one of them.
    """
    chosen = re.findall(r" (?:-A|-p|-C) \S+", request)
    step = ["srun", "--quiet", "--ntasks=1", "--time=1", "--mem=50", "--chdir=/", f"--immediate={PROBE_SECONDS}"]
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".shared-") as token:
        # Exit code 3 is the node's own word: srun itself ends with 1.
        look = 'test -e "$0" || { echo "$0"; exit 3; }; test -x "$1" || { echo "$1"; exit 3; }'
        answer = call(*step, *shlex.split(" ".join(chosen)), "sh", "-c", look, token.name, sys.executable)
    if answer.returncode == 3:
        raise UserError(
            f"a node doesn't see {Path(answer.stdout.strip()).parent}: work in a directory that the nodes share, with its .venv in it"
        )
    if answer.returncode:
        log.info(f"No node was free to prove that it sees {directory} ({words(answer)}).")
