"""SIGKILL at a random moment of every rule: what is made in the end is what one quiet run makes."""

import csv
import os
import platform
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import COMMANDS, Killer
from support.experiments import SMALL, small
from support.workspace import Workspace

from reproduce import hashes
from snaketune.core.files import sha256

pytestmark = pytest.mark.long

KILLED = {**SMALL, "techniques": ["lora", "zero3"], "precisions": ["fp32", "int8"]}
# What only other targets than the default need.
ASIDE = {"fetch_model": "results/models/local/base/manifest.json", "train_at_rate": "tune", "collect_tuning": "tune"}


def lives(workspace: Workspace) -> dict[str, float]:
    """Seconds that a job of each rule lived in an undisturbed run."""
    found = {**dict.fromkeys(COMMANDS, 1.0), "collect_tuning": 0.3}
    for rule, pattern in {
        **{name: name for name in COMMANDS},
        "train_adapter": "train/*/*/lora/*",
        "train_all_weights": "train/*/*/zero3/*",
        "merge_adapter": "merge/*/*/lora/*",
        "copy_model": "merge/*/*/zero3/*",
        "evaluate_torch": "evaluate/*/*/lora/*/torch",
        "evaluate_onnx": "evaluate/*/*/lora/*/onnx-int8",
        "export_onnx": "export/runs/*/*/lora/*/fp32",
        "quantize_onnx": "export/runs/*/*/lora/*/int8",
    }.items():
        for path in (workspace.path / "logs/benchmarks").rglob("*.tsv"):
            name = path.relative_to(workspace.path / "logs/benchmarks").with_suffix("")
            if name.match(pattern) or name.parts[0] == pattern:
                with path.open(newline="") as file:
                    found[rule] = float(next(csv.DictReader(file, delimiter="\t"))["s"])
    return found


def run_with_kills(finished: Workspace, path: Path, counts: Counter[str], seed: int) -> tuple[Killer, dict[str, bool]]:
    """The small experiment, made while jobs are killed, and whether each of its files is as in the quiet run."""
    workspace = small(path, KILLED)
    killer = Killer(workspace, counts, lives(finished), random.Random(seed))  # noqa: S311
    killer.run()
    shutil.copytree(workspace.path / "results/models/test-phi3/base", workspace.path / "local")
    local = {"description": "A local copy.", "licence": "MIT", "path": "local"}
    workspace.write("config/models/local.yaml", local)
    grid = {**KILLED, "models": ["test-phi3", "local"], "techniques": ["lora"], "learning_rate_grid": [0.003]}
    workspace.write(workspace.experiment, grid)
    killer.run(*dict.fromkeys(ASIDE.values()))
    return killer, compare(finished, workspace)


def compare(finished: Workspace, killed: Workspace) -> dict[str, bool]:
    """Of each file that the killed experiment made: whether the quiet one, which has more, made the same."""
    equal = {}
    for run in ("base/seed-0", "lora/seed-1", "zero3/seed-1"):
        one, other = (hashes(w.path / "results/runs/test-phi3/test-areas" / run) for w in (finished, killed))
        equal |= {f"{run}/{name}": one.get(name) == other[name] for name in other}
    for folder in ("corpus", "data", "models/test-phi3", "tokens/test-phi3"):
        for path in (killed.path / "results" / folder).rglob("*"):
            if path.suffix in (".safetensors", ".jsonl") or path.name == "manifest.json":
                name = path.relative_to(killed.path)
                equal[str(name)] = sha256(path) == sha256(finished.path / name)
    fetched = killed.path / "results/models/local/base/model.safetensors"
    base = finished.path / "results/models/test-phi3/base/model.safetensors"
    equal["the fetched model"] = sha256(fetched) == sha256(base)
    assert not list((killed.path / "results").rglob(".*")), "a killed job's scratch is still there"
    return equal


def test_a_kill_in_every_rule_changes_nothing(finished: Workspace, tmp_path: Path) -> None:
    killer, equal = run_with_kills(finished, tmp_path, Counter(dict.fromkeys(COMMANDS, 1)), seed=1)
    assert all(equal.values()), equal
    assert Counter(str(one["rule"]) for one in killer.kills) == Counter(COMMANDS.keys())


@pytest.mark.soak
def test_thirty_kills_at_random(
    finished: Workspace, tmp_path: Path, record: Callable[[str, dict[str, object]], None]
) -> None:
    seed = int(os.environ.get("SOAK_SEED", "1"))
    drawn = random.Random(seed).choices(list(COMMANDS), k=30)  # noqa: S311
    killer, equal = run_with_kills(finished, tmp_path, Counter(drawn), seed)
    figures = {
        "seed": seed,
        "kills": killer.kills,
        "with_snakemake": sum(bool(one["with_snakemake"]) for one in killer.kills),
        "files_compared": len(equal),
        "files_that_differ": sorted(name for name, same in equal.items() if not same),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    record("soak.json", figures)
    assert len(killer.kills) == 30
    assert all(equal.values()), equal
