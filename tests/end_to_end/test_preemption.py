"""A run that is told to end saves a checkpoint; its next life ends with the bytes of an undisturbed run."""

import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.training_runs import REPOSITORY, command, curve, recipe_of, weights, write_inputs
from support.workspace import Workspace, python

pytestmark = pytest.mark.long

# Long enough to be caught in the middle.
LONG = {"epochs": 12}
LAUNCHERS: dict[str, list[str]] = {"lora": [], "zero3": ["scripts/launch.py", "--ranks", "2"]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_inputs(directory)
    return directory


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the undisturbed run of each technique lies."""
    places = {technique: tmp_path_factory.mktemp("whole") for technique in LAUNCHERS}
    runs = [started(LAUNCHERS[technique], inputs, place, technique) for technique, place in places.items()]
    for run, place in zip(runs, places.values(), strict=True):
        assert run.wait() == 0, log_of(place)
    return places


def started(launcher: list[str], inputs: Path, out: Path, technique: str) -> psutil.Popen:
    words = [python(), *launcher, *command(inputs, out, recipe_of(technique, **LONG))]
    log = (out / "log").open("a")
    return psutil.Popen(words, cwd=REPOSITORY, stdout=log, stderr=log)


def log_of(out: Path) -> str:
    return (out / "log").read_text()


def in_the_middle(running: psutil.Popen, out: Path) -> None:
    while "step 6/48" not in log_of(out):
        assert running.poll() is None, log_of(out)
        time.sleep(0.02)


@pytest.mark.parametrize(("technique", "number"), [("lora", signal.SIGUSR1), ("zero3", signal.SIGTERM)], ids=str)
def test_a_run_that_is_warned_resumes_later(
    technique: str, number: signal.Signals, inputs: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    first = started(LAUNCHERS[technique], inputs, tmp_path, technique)
    in_the_middle(first, tmp_path)
    first.send_signal(number)
    assert first.wait(timeout=300) == 1
    said = [line for line in log_of(tmp_path).splitlines() if line.startswith("error")]
    assert len(said) == 1
    assert "stopped by a signal after step" in said[0]
    assert "Traceback" not in log_of(tmp_path)
    assert not (tmp_path / "run").exists()
    assert len(list((tmp_path / "work").glob("checkpoint-*/state.json"))) == 1

    second = started(LAUNCHERS[technique], inputs, tmp_path, technique)
    assert second.wait() == 0, log_of(tmp_path)
    assert "resumes from step" in log_of(tmp_path)
    assert curve(tmp_path) == curve(whole[technique])
    assert weights(tmp_path) == weights(whole[technique])


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
