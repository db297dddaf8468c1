"""Run a workflow while killing its jobs, without warning and at random moments, until all is made."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
from support.workspace import Workspace

# Each rule's script, and what else its command holds.
COMMANDS = {
    "collect_documentation": ("collect_documentation.py", ""),
    "prepare_data": ("prepare_data.py", ""),
    "train_tokenizer": ("train_tokenizer.py", ""),
    "pretrain_model": ("pretrain_model.py", ""),
    "fetch_model": ("fetch_model.py", ""),
    "tokenize_data": ("tokenize_data.py", ""),
    "train_adapter": ("train.py", "/lora/seed-"),
    "train_all_weights": ("train.py", "/zero3/seed-"),
    "train_at_rate": ("train.py", "results/tuning/"),
    "merge_adapter": ("merge_adapter.py", ""),
    "copy_model": ("copy_model.py", "/zero3/"),
    "evaluate_torch": ("evaluate.py", "evaluation/torch.json"),
    "evaluate_onnx": ("evaluate.py", "evaluation/onnx-"),
    "export_onnx": ("export_onnx.py", ""),
    "quantize_onnx": ("quantize_onnx.py", ""),
    "check_parity": ("check_parity.py", ""),
    "summarize": ("summarize.py", ""),
    "write_technique_table": ("write_technique_table.py", ""),
    "write_plots": ("write_plots.py", ""),
    "write_report": ("write_report.py", ""),
    "record_results": ("record_results.py", ""),
    "collect_tuning": ("collect_tuning.py", ""),
}


@dataclass
class Killer:
    """Kills a job of each rule as often as ``counts`` says, ``lives`` seconds being how long each lives."""

    workspace: Workspace
    counts: Counter[str]
    lives: dict[str, float]
    generator: random.Random
    kills: list[dict[str, object]] = field(default_factory=list)

    def run(self, *targets: str) -> None:
        """Start Snakemake again and again until every target is made and each of its rules was killed.

        Snakemake itself repeats a job that was killed without it.
        """
        log = self.workspace.path / "snakemake.log"
        for _ in range(10 + 3 * self.counts.total()):
            running = self.workspace.started(log, "--cores", "2", "--keep-going", "--retries", "9", *targets)
            while running.is_running() and running.status() != psutil.STATUS_ZOMBIE and not self._kill_one(running):
                time.sleep(0.02)
            code = running.wait()
            if code == 0 and not self._unmake(targets):
                return
            if code < 0:
                self.workspace.forked("--unlock")
        raise AssertionError(log.read_text()[-6000:])

    def _unmake(self, targets: tuple[str, ...]) -> bool:
        """Delete the files of each rule that was quicker than the killer so far; whether there was one.

        All of them: Snakemake makes a file that is missing only if another job, or the target, needs it.
        """
        missed = [path for path, (rule, _) in self.workspace.plans(*targets).items() if self.counts[rule] > 0]
        for path in missed:
            (self.workspace.path / path).unlink(missing_ok=True)
        return bool(missed)

    def _kill_one(self, snakemake: psutil.Process) -> bool:
        """Kill one waited-for job, alone or with Snakemake itself; whether Snakemake was killed."""
        for rule, job in self._jobs(snakemake):
            delay = self.generator.uniform(0, 0.5 * self.lives[rule])
            whole = self.generator.random() < 0.5
            time.sleep(delay)
            victims = descendants(snakemake if whole else job)
            alive = job.is_running()
            for victim in victims:
                kill(victim)
            psutil.wait_procs(victims, timeout=20)
            if not alive:
                self.lives[rule] /= 2
            else:
                self.counts[rule] -= 1
                self.kills.append({"rule": rule, "after_seconds": round(delay, 2), "with_snakemake": whole})
            return whole
        return False

    def _jobs(self, snakemake: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
        for process in snakemake.children(recursive=True):
            try:
                rules = rules_of(" ".join(process.cmdline()))
            except psutil.Error:
                continue
            yield from ((rule, process) for rule in rules if self.counts[rule] > 0)


def rules_of(command: str) -> list[str]:
    """The rules whose job a command is."""
    return [rule for rule, (script, part) in COMMANDS.items() if f"scripts/{script}" in command and part in command]


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it: torchrun's ranks have sessions of their own and would outlive it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.kill()
