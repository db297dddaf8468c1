"""A run that is told to end saves a checkpoint; its next life ends with the bytes of an undisturbed run."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.training_runs import REPOSITORY, command, curve, recipe_of, weights, write_inputs
from support.workspace import Workspace

pytestmark = pytest.mark.long

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
# Long enough to be caught in the middle.
LONG = {"epochs": 24}
CASES = {"lora": [sys.executable], "zero3": [sys.executable, "scripts/launch.py", "--ranks", "2"]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_inputs(directory)
    return directory


def started(launcher: list[str], inputs: Path, out: Path, technique: str) -> psutil.Popen:
    out.mkdir(exist_ok=True)
    words = [*launcher, *command(inputs, out, recipe_of(technique, **LONG))]
    log = (out / "log").open("a")
    return psutil.Popen(words, cwd=REPOSITORY, env=ENVIRONMENT, stdout=log, stderr=log)


def log_of(out: Path) -> str:
    return (out / "log").read_text()


def in_the_middle(running: psutil.Popen, out: Path) -> None:
    while "step 12/96" not in log_of(out):
        assert running.poll() is None, log_of(out)
        time.sleep(0.02)


@pytest.mark.parametrize(("technique", "number"), [("lora", signal.SIGUSR1), ("zero3", signal.SIGTERM)], ids=str)
def test_a_run_told_to_end_goes_on_later(technique: str, number: signal.Signals, inputs: Path, tmp_path: Path) -> None:
    launcher = CASES[technique]
    whole, told = tmp_path / "whole", tmp_path / "told"
    undisturbed = started(launcher, inputs, whole, technique)
    assert undisturbed.wait() == 0, log_of(whole)

    first = started(launcher, inputs, told, technique)
    in_the_middle(first, told)
    first.send_signal(number)
    assert first.wait(timeout=300) == 1
    said = [line for line in log_of(told).splitlines() if line.startswith("error")]
    assert len(said) == 1
    assert "stopped by a signal after step" in said[0]
    assert "Traceback" not in log_of(told)
    assert not (told / "run").exists()
    assert len(list((told / "work").glob("checkpoint-*/state.json"))) == 1

    second = started(launcher, inputs, told, technique)
    assert second.wait() == 0, log_of(told)
    assert "resumes from step" in log_of(told)
    assert curve(told) == curve(whole)
    assert weights(told) == weights(whole)


def test_a_run_on_two_nodes_goes_on_when_one_is_told_to_end_and_then_on_one_node(inputs: Path, tmp_path: Path) -> None:
    """Two launchers on this machine stand for two nodes; the signal reaches one of them."""
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    undisturbed = started(CASES["zero3"], inputs, whole, "zero3")
    assert undisturbed.wait() == 0, log_of(whole)

    port = 20000 + os.getpid() % 10000
    node = [sys.executable, "scripts/launch.py", "--ranks", "2", "--nodes", "2", "--rendezvous", f"127.0.0.1:{port}"]
    nodes = [started(node, inputs, apart, "zero3") for _ in range(2)]
    in_the_middle(nodes[0], apart)
    nodes[1].send_signal(signal.SIGUSR1)
    assert [one.wait(timeout=300) for one in nodes] == [1, 1]
    assert log_of(apart).count("stopped by a signal after step") == 1

    on_one = started(CASES["zero3"], inputs, apart, "zero3")
    assert on_one.wait() == 0, log_of(apart)
    assert "resumes from step" in log_of(apart)
    assert weights(apart) == weights(whole)


def test_snakemake_passes_a_warning_on(finished: Workspace, tmp_path: Path) -> None:
    """With proctrack/cgroup SLURM warns the first process of a job alone, which is a Snakemake."""
    copy = Workspace(shutil.copytree(finished.path, tmp_path / "copy", symlinks=True))
    slow = '__import__("time").sleep(1) or'
    copy.edit("scripts/train.py", "interrupted=stop_notice()", f"interrupted=lambda stop=stop_notice(): {slow} stop()")
    run = "test-phi3/test-areas/lora/seed-1"
    log = copy.path / f"logs/train/{run}.log"
    log.unlink()
    words = [sys.executable, "-m", "snakemake", "--configfile", copy.experiment, "--cores", "2"]
    warned = psutil.Popen([*words, f"results/runs/{run}/manifest.json"], cwd=copy.path)
    while not log.exists() or "step 1/" not in log.read_text():
        assert warned.poll() is None
        time.sleep(0.05)
    warned.send_signal(signal.SIGUSR1)
    assert warned.wait(timeout=300) == 1
    assert "stopped by a signal after step" in log.read_text()
    assert list((copy.path / f"work/training/{run}").glob("checkpoint-*/state.json"))
