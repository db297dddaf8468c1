"""What the benchmarks share: processes that take turns under a time limit, kept results, and tables of ratios."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

import machine  # noqa: E402

import make_environment  # noqa: E402
from snaketune.core import files  # noqa: E402
from snaketune.core.errors import UserError  # noqa: E402
from snaketune.evaluation.speed import Server, spread  # noqa: E402

# Kinds of rows that are trained: tokens that all begin with; least and most of their own; the share of these that is the answer.
KINDS = {
    "short, common prompt": (35, 12, 32, 0.2),
    "long, different": (0, 64, 224, 0.25),
    "system prompt of 200": (200, 40, 80, 0.1),
}
# Losses of equal batches in fp32 may differ by so much, relatively.
EQUAL = 1e-4


def packages_of(*requirements: Path) -> Path:
    """Return the folder of packages of an environment of its own, made first unless the workflow has it."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in requirements)).hexdigest()[:12]
    environment = ROOT / f"work/environments/{requirements[-1].parent.name}-{digest}"
    make_environment.make(list(requirements), environment)
    return next(environment.glob("lib/python*/site-packages"))


def add_packages(*requirements: Path) -> None:
    """Put packages that only a benchmark needs behind ours on the path, which the processes of the systems inherit."""
    sys.path.append(str(packages_of(*requirements)))


def quiet(name: str) -> None:
    """Let the terminal have only what this process prints: what other programs and processes write goes to a file."""
    path = ROOT / f"work/benchmarks/{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"messages of other programs and libraries: {path}", flush=True)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    with path.open("w") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)


class Turns(Server):
    """A system in a process of its own, which is ended if an answer takes longer than ``cap`` seconds."""

    def __init__(self, system: str, load: Callable[[], Any], cap: float):
        # Loading, which isn't counted, may take longer.
        self.cap = 10 * cap
        super().__init__(system, load)
        self.cap = cap

    def _answer(self) -> Any:
        if not self.connection.poll(self.cap):
            self.stop()
            raise UserError(f"{self.system}: no answer within {self.cap:g} s")
        return super()._answer()


def provenance() -> dict[str, Any]:
    """Return hardware, versions and the commit of a measurement; "-dirty" if more than figures and pages has changed."""

    def git(*command: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=False).stdout

    commit = git("rev-parse", "--short=12", "HEAD").strip()
    if git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!benchmarks/*.json", ":!*.md").strip():
        commit += "-dirty"
    return {"hardware": machine.hardware(), "versions": machine.versions(), "commit": commit or None}


def kept(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what an interrupted benchmark kept if it measured what is ``asked`` for, or a fresh start."""
    found = files.read_json(path) if path.exists() else {}
    if found.get("asked") == asked:
        return found
    return {"asked": asked, "differences": {}, "rounds": [], "left_out": {}}


def difference(ours: list[float], theirs: list[float]) -> float:
    """Return the largest relative difference of two loss curves."""
    return max(abs(a - b) / max(abs(a), abs(b)) for a, b in zip(ours, theirs, strict=True))


def ratios(rounds: list[dict[str, float]], one: str, other: str) -> dict[str, float] | None:
    """Return the spread of a ratio over the rounds that measured both, or None if there was none."""
    found = [rates[one] / rates[other] for rates in rounds if one in rates and other in rates]
    return {**spread(found), "n": len(found)} if found else None


def refuse_unequal(differences: dict[str, float]) -> None:
    """Refuse to compare systems that don't do the same.

    Raises:
        UserError: some losses weren't compared, or differ.
    """
    wrong = {kind: value for kind, value in differences.items() if not value <= EQUAL}
    if wrong or not differences:
        shown = ", ".join(f"{kind} by {value:.1e}" for kind, value in wrong.items()) or "they weren't compared"
        raise UserError(
            f"losses on equal batches must agree to {EQUAL:g} before speeds are compared: {shown}; no ratio is given"
        )


def shown(ratio: dict[str, float] | None) -> str:
    return f"{ratio['median']:.2f} [{ratio['least']:.2f}, {ratio['most']:.2f}]" if ratio else "–"
