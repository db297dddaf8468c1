"""A run that is told to end saves a checkpoint; its next life ends with the bytes of an undisturbed run."""

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


def wait_for(words: str, log: Path, running: psutil.Popen) -> None:
    while not (log.exists() and words in log.read_text()):
        assert running.poll() is None, log.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize(("technique", "number"), [("lora", signal.SIGUSR1), ("zero3", signal.SIGTERM)], ids=str)
def test_a_run_that_is_warned_resumes_later(
    technique: str, number: signal.Signals, inputs: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    first = started(LAUNCHERS[technique], inputs, tmp_path, technique)
    wait_for("step 6/48", tmp_path / "log", first)
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


def test_snakemake_passes_a_warning_on(copy: Workspace) -> None:
    """With proctrack/cgroup SLURM warns the first process of a job alone, which is a Snakemake."""
    slow = '__import__("time").sleep(1) or'
    copy.edit("scripts/train.py", "interrupted=stop_notice()", f"interrupted=lambda stop=stop_notice(): {slow} stop()")
    run = "test-phi3/test-areas/lora/seed-1"
    log = copy.path / f"logs/train/{run}.log"
    log.unlink()
    words = [sys.executable, "-m", "snakemake", "--configfile", copy.experiment, "--cores", "2"]
    warned = psutil.Popen([*words, f"results/runs/{run}/manifest.json"], cwd=copy.path)
    wait_for("step 1/", log, warned)
    warned.send_signal(signal.SIGUSR1)
    assert warned.wait(timeout=300) == 1
    assert "stopped by a signal after step" in log.read_text()
    assert list((copy.path / f"work/training/{run}").glob("checkpoint-*/state.json"))
