"""What a person sees: a plan on one screen with reasons in words, and how long a run will still take."""

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent
from support.workspace import Workspace

from snaketune.dag.remaining import Remaining, duration
from snaketune.dag.running import TRAINING, Running
from snaketune.dag.terminal import Terminal

LORA = "config/techniques/lora.yaml"


def rows(shown: str) -> dict[str, tuple[int, str]]:
    found = re.findall(r"^(\w+) +(\d+)  (.+)$", shown, re.MULTILINE)
    return {rule: (int(count), why) for rule, count, why in found}


def test_a_plan_fits_on_a_screen_and_gives_reasons_in_words(edited: Workspace) -> None:
    edited.edit(LORA, "r: 8", "r: 4")
    (edited.path / "results/data/classification/card.json").unlink()
    shown = edited.forked("--dry-run").stdout
    told = rows(shown)
    assert told["train_adapter"] == (1, "its recipe changed: adapter.options.r")
    assert told["prepare_data"] == (1, "new")
    assert told["tokenize_data"] == (1, "an input will be remade")
    every = edited.forked("--dry-run", "--forceall")
    assert len((every.stdout + every.stderr).splitlines()) <= 40
    assert rows(every.stdout)["check_parity"] == (3, "forced by --force")


@pytest.mark.parametrize("option", ["--verbose", "--printshellcmds", "--quiet=host"])
def test_snakemake_says_what_it_is_asked_to(edited: Workspace, option: str) -> None:
    edited.edit(LORA, "r: 8", "r: 4")
    shown = edited.forked("--dry-run", option).stdout
    assert re.search(r"^Job \d+: Training lora .*\nReason: .*Params have changed", shown, re.MULTILINE)
    assert ('python "$SNAKETUNE/scripts/merge_adapter.py"' in shown) == (option == "--printshellcmds")


@pytest.mark.parametrize(("seconds", "words"), [(6.6, "7 s"), (72, "1 min 12 s"), (7500, "2 h 5 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[m/classification/lora/seed-1] step 3/9  loss 0.1", ("lora", "step 3/9  loss 0.1")),
        ("[models/m/base] step 3/9  loss 0.1", ("base", "step 3/9  loss 0.1")),
    ],
)
def test_a_training_is_named_by_its_technique(line: str, words: tuple[str, str]) -> None:
    found = TRAINING.fullmatch(line)
    assert found and found.groups() == words


def test_the_time_left_follows_earlier_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "logs/benchmarks/train/m"
    place.mkdir(parents=True)
    for name, seconds in (("lora", 100), ("full", 300)):
        (place / f"{name}.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")
    rule = SimpleNamespace(name="train_adapter")

    def job(number: int, name: str | None, model: str = "m") -> SimpleNamespace:
        benchmark = f"logs/benchmarks/train/{model}/{name}.tsv" if name else None
        wildcards = {"model": model}
        return SimpleNamespace(
            jobid=number, benchmark=benchmark, threads=1, output=["out"], rule=rule, wildcards=wildcards
        )

    lora, dora = job(0, "lora"), job(1, "dora")
    # DoRA never ran here: as long as the others on average.
    remaining = Remaining([lora, dora], 2)
    assert remaining.told({0: 40.0, 1: 100.0}) == f"about {duration(100)} left"
    remaining.finished(1, 200)
    assert remaining.told({0: 40.0}) == "about 1 min 0 s left"
    assert Remaining([lora, job(2, None)], 1).told({}) == "over 1 min 40 s left"
    assert Remaining([job(2, None)], 1).told({}) == "time left not known yet"
    # Another model's jobs say nothing about this one's.
    assert Remaining([job(2, "lora", "large")], 1).told({}) == "time left not known yet"
    # It takes as long as it says, and what overran its estimate takes no one knows how long.
    assert Remaining([lora], 1).told({0: 90.0}, {0: 89.0}) == "about 1 min 29 s left"
    assert Remaining([lora, dora], 1).told({0: 120.0}) == "over 3 min 20 s left"


@pytest.mark.parametrize(
    ("path", "wildcards", "kind"),
    [
        ("export/runs/m/s/lora/seed-1/int8.tsv", {"model": "m", "run": "/s/lora/seed-1"}, "export/runs/m/s"),
        ("export/models/m-0.6b/int8.tsv", {"model": "m-0.6b", "run": ""}, "export/models/m-0.6b"),
        ("tokenize_data/m/s.tsv", {"model": "m", "scenario": "s"}, "tokenize_data/m/s"),
        ("write_report.tsv", {}, "write_report"),
    ],
)
def test_jobs_of_a_kind_share_rule_model_and_scenario(path: str, wildcards: dict[str, str], kind: str) -> None:
    job: Any = SimpleNamespace(benchmark=f"logs/benchmarks/{path}", wildcards=wildcards)
    assert Remaining._kind(job) == f"logs/benchmarks/{kind}"


def test_a_training_says_how_long_it_still_takes(tmp_path: Path) -> None:
    log = tmp_path / "seed-1.log"
    log.write_text("[m/s/lora/seed-1] step 30/66  loss 0.9  100 tokens/s  89 s left\n[2026-01-01] a warning\n")
    assert Running("", [str(log)], 0.0).seconds_left() == 89


def test_only_jobs_that_run_are_counted() -> None:
    """`all` only names files."""
    jobs = [SimpleNamespace(message=None, output=output) for output in (["a"], ["b"], [])]
    workflow = SimpleNamespace(dryrun=False, dag=SimpleNamespace(needrun_jobs=lambda: jobs))
    replaced: Any = SimpleNamespace(stream=io.StringIO(), nocolor=True, is_tty=False)
    terminal = Terminal(workflow, replaced)
    record = logging.makeLogRecord({"event": LogEvent.RUN_INFO, "stats": {"total": 3}})
    assert list(terminal.told(record)) == []
    for number, words in enumerate(("a", "b", "")):
        terminal.running[number] = Running(words, [], 0.0)
        terminal.finish(number)
    assert (terminal.done, terminal.total) == (2, 2)


def test_a_plan_made_during_a_run_is_no_error() -> None:
    replaced: Any = SimpleNamespace(stream=io.StringIO(), nocolor=True, is_tty=False)
    said = "Error: Directory cannot be locked. Another Snakemake instance is running."
    told = list(Terminal(SimpleNamespace(dryrun=True), replaced).told(logging.makeLogRecord({"msg": said})))
    assert told == ["Another run is at work here, or one was killed (then: `snakemake --unlock`)."]


def test_results_go_to_standard_output_and_progress_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = io.StringIO()
    replaced: Any = SimpleNamespace(stream=progress, nocolor=True, is_tty=False)
    terminal = Terminal(SimpleNamespace(dryrun=False), replaced)
    (tmp_path / "collect_tuning.log").write_text("lora: 0.001 is best\n")
    terminal.ran["collect_tuning"] = [str(tmp_path / "collect_tuning.log")]
    monkeypatch.setattr(logger, "handlers", [terminal])
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.warning("no GPU here")
    terminal.tell_results()
    assert (progress.getvalue(), capsys.readouterr().out) == ("no GPU here\n", "lora: 0.001 is best\n")
