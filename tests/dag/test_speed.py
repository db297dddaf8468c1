"""What exact triggers cost: a call with nothing to do, side by side with Snakemake's own."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.workspace import REPOSITORY, Workspace, made

pytestmark = pytest.mark.soak

SECONDS = 2.0
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


def write_trivial_rules(workspace: Workspace, path: Path) -> list[str]:
    """Write the Snakefile of a workflow of trivial rules with the same jobs and files; returns the outputs."""
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


class Call(NamedTuple):
    """What a call of Snakemake took: seconds on the clock and of the processor, its largest resident MB."""

    seconds: float
    cpu: float
    memory: float
    shown: str


def call(path: Path, *arguments: str) -> Call:
    command, started = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments], time.perf_counter()
    with (path / "shown.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=path, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        log.seek(0)
        shown = log.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, shown[-2000:]
    return Call(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, shown)


def test_a_call_with_nothing_to_do_costs_little_more_than_snakemakes_own(tmp_path: Path) -> None:
    default = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    workspace, trivial = Workspace.make(tmp_path / "ours", {"techniques": default["techniques"]}), tmp_path / "trivial"
    made(workspace)
    for name in write_trivial_rules(workspace, trivial):
        (trivial / name).parent.mkdir(parents=True, exist_ok=True)
        (trivial / name).write_text(name)
    call(trivial, "--touch", "--forceall")
    taken: dict[Path, list[float]] = {workspace.path: [], trivial: []}
    for _ in range(3):
        for path, seconds in taken.items():
            one = call(path)
            assert "Nothing to be done" in one.shown
            seconds.append(one.cpu)
    ours, theirs = map(statistics.median, taken.values())
    print(f"ours {ours:.1f} s, trivial {theirs:.1f} s: {ours - theirs:+.1f} s")
    assert ours - theirs < SECONDS


def test_a_thousand_cells_are_planned_in_little_more_than_snakemakes_own_time(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path / "ours", {**CELLS, "seeds": list(range(1, 144))})
    write_trivial_rules(workspace, tmp_path / "trivial")
    ours = call(tmp_path / "ours", "--dry-run", "--configfile", workspace.experiment)
    theirs = call(tmp_path / "trivial", "--dry-run")
    print(*(f"{one.cpu:.0f} s and {one.memory:.0f} MB" for one in (ours, theirs)), f"{ours.cpu / theirs.cpu:.2f} times")
    assert ours.cpu < FACTOR * theirs.cpu
