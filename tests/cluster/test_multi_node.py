"""ZeRO-3 over two nodes of a SLURM job: warned there, it goes on from its checkpoint on one node."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from loopback import Cluster, until
from support.training_runs import REPOSITORY, command, recipe_of, weights, write_inputs

LAUNCH = [sys.executable, "scripts/launch.py", "--ranks", "2"]


def submitted(words: list[str], log: Path) -> str:
    """The number of a SLURM job on two nodes that runs a command where this repository is."""
    # Two compilers of DeepSpeed's operations take a gigabyte each, where these aren't built yet.
    asked = ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--mem=5000", "--time=20"]
    job = ["sbatch", "--parsable", *asked, f"--output={log}", "--wrap", shlex.join(words)]
    return subprocess.run(job, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()


def test_two_nodes_then_one(cluster: Cluster, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    recipe, log = recipe_of("zero3", epochs=50), tmp_path / "log"
    on_nodes = command(tmp_path, tmp_path / "told", recipe)
    job = submitted([*LAUNCH, "--nodes", "2", *on_nodes], log)
    until(lambda: log.exists() and "step 20/200" in log.read_text(), "steps on two nodes", seconds=600)
    assert [one["node"] for one in cluster.jobs("-j", job)] == ["n[1-2]"]
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    until(lambda: not cluster.jobs("-j", job), "the job to end", seconds=300)
    assert log.read_text().count("stopped by a signal after step") == 1
    assert list((tmp_path / "told/work").glob("checkpoint-*/state.json"))

    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    for words in (on_nodes, command(tmp_path, tmp_path / "whole", recipe)):
        subprocess.run([*LAUNCH, *words], cwd=REPOSITORY, env=outside, capture_output=True, check=True)
    assert weights(tmp_path / "told") == weights(tmp_path / "whole")
