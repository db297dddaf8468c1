"""What exact triggers cost: a call with nothing to do, side by side with Snakemake's own."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.workspace import REPOSITORY, Workspace, made

pytestmark = pytest.mark.soak

SECONDS = 5.0
CELLS = {"techniques": ["full", "lora", "qlora", "dora", "peft-ia3", "deepspeed", "zero3"], "precisions": []}
FACTOR = 1.3
LISTED = """
import gc, json, logging, sys
from pathlib import Path
from snakemake.cli import main
from snakemake.workflow import Workflow
from snakemake_interface_logger_plugins.common import LogEvent

jobs = []
def collect(record):
    if getattr(record, "event", None) == LogEvent.JOB_INFO:
        jobs.append([record.rule_name, [str(name) for name in record.input], [str(name) for name in record.output]])
    return record.levelno >= logging.WARNING

logging.getLogger("snakemake.logging").addFilter(collect)
try:
    main(sys.argv[2:])
except SystemExit as ended:
    [workflow] = [one for one in gc.get_objects() if type(one) is Workflow]
    files = {
        rule.name: [[str(name) for name in names] for names in (rule.output, rule.log, [rule.benchmark] * bool(rule.benchmark))]
        for rule in workflow.rules
    }
    Path(sys.argv[1]).write_text(json.dumps([jobs, files]))
    raise
"""


def trivial(workspace: Workspace, path: Path) -> None:
    """A workflow of trivial rules with the same jobs and files, all made."""
    for name in trivial_rules(workspace, path):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    call(path, "--touch", "--forceall")


def trivial_rules(workspace: Workspace, path: Path) -> list[str]:
    """Write the Snakefile of such a workflow, with a rule for each of ours; returns the outputs."""
    jobs, files = jobs_and_files(workspace)
    made = {name for _, _, outputs in jobs for name in outputs}
    needed = {outputs[0]: [name for name in inputs if name in made] for _, inputs, outputs in jobs if outputs}
    [targets] = (inputs for rule, inputs, _ in jobs if rule == "all")
    rules = ["import json\n\nwith open('inputs.json') as file:\n    INPUTS = json.load(file)\n"]
    rules.append(f"rule all:\n    input: {[name for name in targets if name in made]!r}\n")
    for rule in sorted({rule for rule, _, outputs in jobs if outputs}):
        outputs, logs, benchmarks = files[rule]
        first = re.sub(r"\{(\w+),[^{}]*\}", r"{\1}", outputs[0])
        rules.append(
            f"rule {rule}:\n    input: lambda wildcards: INPUTS[{first!r}.format(**wildcards)]\n    output: {outputs!r}\n"
            + f"    log: {logs!r}\n" * bool(logs)
            + f"    benchmark: {benchmarks[:1]!r}[0]\n" * bool(benchmarks)
            + '    shell: "touch {output}"\n'
        )
    path.mkdir()
    (path / "inputs.json").write_text(json.dumps(needed))
    (path / "Snakefile").write_text("\n".join(rules))
    return sorted(made)


def jobs_and_files(workspace: Workspace) -> tuple[list[tuple[str, list[str], list[str]]], dict[str, list[list[str]]]]:
    """Rule, inputs and outputs of every job, as Snakemake logs them; and outputs, logs and benchmark of every rule."""
    found = workspace.path / "work/jobs.json"
    arguments = ["--configfile", workspace.experiment, "--dry-run", "--forceall", "--cores", "1"]
    subprocess.run([sys.executable, "-c", LISTED, found, *arguments], cwd=workspace.path, check=True)
    jobs, files = json.loads(found.read_text())
    return jobs, files


def call(path: Path, *arguments: str) -> float:
    """Seconds of one call of Snakemake."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    shown = subprocess.run(command, cwd=path, capture_output=True, text=True, check=True)
    if not arguments:
        assert "Nothing to be done" in shown.stdout + shown.stderr
    return time.perf_counter() - started


def test_a_call_with_nothing_to_do_costs_little_more_than_snakemakes_own(tmp_path: Path) -> None:
    default = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    workspace = made(Workspace.make(tmp_path / "ours", {"techniques": default["techniques"]}))
    trivial(workspace, tmp_path / "trivial")
    ours, theirs = [], []
    for _ in range(3):
        ours.append(call(tmp_path / "ours"))
        theirs.append(call(tmp_path / "trivial"))
    more = statistics.median(ours) - statistics.median(theirs)
    print(f"ours {statistics.median(ours):.1f} s, trivial {statistics.median(theirs):.1f} s: {more:+.1f} s")
    assert more < SECONDS


def planned(path: Path, *arguments: str) -> tuple[float, float]:
    """Seconds of processor time that a dry run takes, and its largest resident MB."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *arguments]
    with (path / "planned.log").open("w") as log:
        process = subprocess.Popen(command, cwd=path, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (path / "planned.log").read_text()[-2000:]
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def test_a_thousand_cells_are_planned_in_little_more_than_snakemakes_own_time(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path / "ours", {**CELLS, "seeds": list(range(1, 144))})
    trivial_rules(workspace, tmp_path / "trivial")
    ours, memory = planned(tmp_path / "ours", "--configfile", workspace.experiment)
    theirs, least = planned(tmp_path / "trivial")
    print(
        f"ours {ours:.0f} s and {memory:.0f} MB, trivial {theirs:.0f} s and {least:.0f} MB: {ours / theirs:.2f} times"
    )
    assert ours < FACTOR * theirs
