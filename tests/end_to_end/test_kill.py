"""SIGKILL at a random moment of every rule: what is made in the end is what one quiet run makes."""

import os
import platform
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from killing import COMMANDS, Killer, rules_of
from support.experiments import SMALL, run_of, small
from support.workspace import Workspace

from reproduce import hashes
from snaketune.core.files import read_jsonl, sha256

pytestmark = pytest.mark.long

KILLED = {**SMALL, "techniques": ["lora", "zero3"], "precisions": ["fp32", "int8"]}
# For the rules that the default target doesn't need.
ASIDE = ("results/models/local/base/manifest.json", "tune")


def lives(finished: Workspace, forks: Path) -> dict[str, float]:
    """Seconds that a job of each rule lived in an undisturbed run."""
    found = {**dict.fromkeys(COMMANDS, 1.0), "collect_tuning": 0.3}
    for job in read_jsonl(forks / "usage.jsonl"):
        if job["directory"] == str(finished.path):
            found |= dict.fromkeys(rules_of(" ".join(job["words"])), job["seconds"])
    return found


@pytest.fixture
def run_with_kills(finished: Workspace, forks: Path, tmp_path: Path) -> Callable[..., tuple[Killer, dict[str, bool]]]:
    """The small experiment, made while jobs are killed, and whether each of its files is as in the quiet run."""

    def run(counts: Iterable[str], seed: int) -> tuple[Killer, dict[str, bool]]:
        workspace = small(tmp_path, KILLED)
        killer = Killer(workspace, Counter(counts), lives(finished, forks), random.Random(seed))  # noqa: S311
        killer.run()
        shutil.copytree(workspace.path / "results/models/test-phi3/base", workspace.path / "local")
        local = {"description": "A local copy.", "licence": "MIT", "path": "local"}
        workspace.write("config/models/local.yaml", local)
        grid = {**KILLED, "models": ["test-phi3", "local"], "techniques": ["lora"], "learning_rate_grid": [0.003]}
        workspace.write(workspace.experiment, grid)
        killer.run(*ASIDE)
        return killer, compare(finished, workspace)

    return run


def compare(finished: Workspace, killed: Workspace) -> dict[str, bool]:
    """Of each file that the killed experiment made: whether the quiet one, which has more, made the same."""
    equal = {}
    for technique in ("base", "lora", "zero3"):
        one, other = (hashes(run_of(workspace, technique)) for workspace in (finished, killed))
        equal |= {f"{technique}/{name}": one.get(name) == other[name] for name in other}
    for folder in ("corpus", "data", "models/test-phi3", "tokens/test-phi3"):
        for path in (killed.path / "results" / folder).rglob("*"):
            if path.suffix in (".safetensors", ".jsonl") or path.name == "manifest.json":
                name = path.relative_to(killed.path)
                equal[str(name)] = sha256(path) == sha256(finished.path / name)
    base = "results/models/{}/base/model.safetensors"
    equal["the fetched model"] = sha256(killed.path / base.format("local")) == sha256(
        finished.path / base.format("test-phi3")
    )
    assert not list((killed.path / "results").rglob(".*")), "a killed job's scratch is still there"
    return equal


def test_a_kill_in_every_rule_changes_nothing(run_with_kills: Any) -> None:
    killer, equal = run_with_kills([*COMMANDS], seed=1)
    assert all(equal.values()), equal
    assert Counter(one["rule"] for one in killer.kills) == Counter([*COMMANDS])


@pytest.mark.soak
def test_thirty_kills_at_random(run_with_kills: Any, record: Callable[[str, dict[str, object]], None]) -> None:
    seed = int(os.environ.get("SOAK_SEED", "1"))
    drawn = random.Random(seed).choices(list(COMMANDS), k=30)  # noqa: S311
    killer, equal = run_with_kills(drawn, seed)
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
