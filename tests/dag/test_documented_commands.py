"""Every command in the documents does what it says here, or is listed with what it needs that isn't here.

`make` is asked what it would run, Snakemake what it would do, and a program for its options; nothing runs for long.
"""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from snakemake.cli import main
from support.experiments import TICKETS, UNTRAINED
from support.workspace import REPOSITORY, Workspace

from snaketune.config.experiment import Experiment
from snaketune.config.scenario import Scenario
from snaketune.core.files import read_yaml

PAGES = sorted({*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/README.md"), *REPOSITORY.glob("docs/**/*.md")})
MINE = "config/experiments/mine.yaml"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# How a command begins, and what it needs that isn't here, or what runs it.
ELSEWHERE = {
    "git": "a remote to clone from or push to",
    "docker": "a daemon and a registry: tests/integration/platforms/test_elsewhere.py",
    "aws": "an account",
    "kubectl": "a cluster",
    "dvc": "tests/end_to_end/test_dvc.py",
    "pip": "a package index",
    "snakemake --unlock": "a lock: tests/end_to_end/test_kill.py",
    "snakemake -n --profile profiles/kubernetes": "a plugin that isn't locked: tests/integration/platforms/test_elsewhere.py",
    "/opt/snaketune/.venv/bin/snakemake": "a project: tests/dag/test_projects.py",
    "sha256sum": "a package: tests/unit/reporting/test_package.py",
    "python3 -m venv": "a package's runtime: tests/integration/test_shipping.py",
    ".venv/bin/pip": "a package's runtime: tests/integration/test_shipping.py",
    ".venv/bin/python run.py": "a package: tests/integration/test_shipping.py",
    ".venv/bin/python -m pytest": "a file of a cluster",
}
SHELL = ("source", "cd", "mkdir", "export", "$EDITOR", "…")


class Command(NamedTuple):
    page: Path
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def commands() -> Iterator[Command]:
    for page in PAGES:
        for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in text.replace("\\\n", " ").splitlines() if kind in ("sh", "bash", "console") else ():
                reader = shlex.shlex(line, posix=True, punctuation_chars=";&<>|")
                reader.whitespace_split = True
                words: list[str] = []
                for word in [*reader, ";"]:
                    if not re.fullmatch(r"[;&|]+", word):
                        words.append(word)
                    elif words:
                        yield Command(page, tuple(dropwhile(re.compile(r"[A-Z_]+=").match, words)))
                        words = []


ALL = list(dict.fromkeys(commands()))


def listed(command: Command) -> str | None:
    return next((start for start in ELSEWHERE if f"{command.text} ".startswith(f"{start} ")), None)


def of(*programs: str) -> list[object]:
    found = {one.text: one for one in ALL if one.words[0] in programs and not listed(one)}
    return [pytest.param(one, id=f"{one.page.stem}: {one.text}"[:90]) for one in found.values()]


def written(page: Path) -> dict[str, Any]:
    """The files of config/ that a page tells to write. Without a name, a scenario or an experiment is `mine`."""
    found: dict[str, Any] = {}
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        content = yaml.safe_load(text) if kind == "yaml" else None
        if named := re.match(r"# (config/\S+\.yaml)\n", text):
            found[named[1]] = content
        elif content and content.keys() <= Scenario.model_fields.keys():
            found["config/scenarios/mine.yaml"] = content
        elif content and content.keys() <= Experiment.model_fields.keys():
            found[MINE] = found.get(MINE, {}) | content
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A checkout with the files of the README and of the tutorials."""
    files = [written(page) for page in PAGES if page.parent.name == "tutorials" or page.name == "README.md"]
    workspace = Workspace.make(
        tmp_path_factory.mktemp("reader"), UNTRAINED, {k: v for one in files for k, v in one.items()}
    )
    chats = "".join(f'{{"prompt": "How many are {n}?", "completion": "{n}"}}\n' for n in range(60))
    (workspace.path / "data/mine.jsonl").write_text(chats)
    # What `make new DATA=tickets.csv` writes: tests/end_to_end/test_new_experiment.py.
    (workspace.path / "tickets.jsonl").write_text(TICKETS)
    workspace.write("config/scenarios/tickets.yaml", {"task": "classification", "source": {"path": "tickets.jsonl"}})
    return workspace


def test_every_command_is_tried_here_or_listed_with_its_reason() -> None:
    tried = ("make", "snakemake", "python", ".venv/bin/python", "tools/submit_azure_ml.py")
    left = [one for one in ALL if one.words[0] not in (*tried, *SHELL) and "=" not in one.words[0] and not listed(one)]
    assert left == []
    assert ELSEWHERE.keys() - {listed(one) for one in ALL} == set(), "no page has it any more"


@pytest.mark.parametrize("command", of("make"))
def test_make_has_the_target_and_its_variables(command: Command, reader: Workspace) -> None:
    words = [word for word in command.words if word not in ("-C", "/opt/snaketune")]
    ran = subprocess.run([*words, "--dry-run"], cwd=reader.path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    text = (reader.path / "Makefile").read_text()
    used = set(re.findall(r"(?:\$\(|needed,)([A-Z]+)\b", text))
    unused = [word for word in words if "=" in word and word.partition("=")[0] not in used]
    assert unused == []


@pytest.mark.parametrize("command", of("snakemake"))
def test_snakemake_plans_it(command: Command, reader: Workspace) -> None:
    arguments = [*command.words[1:], "--dry-run"]
    if (own := written(command.page).get(MINE)) and MINE in command.words:
        reader.write(MINE, read_yaml(reader.path / MINE) | own)
    shown = reader.in_fork(lambda: main(arguments))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr


@pytest.mark.parametrize("command", of("python", ".venv/bin/python"))
def test_a_program_has_the_options(command: Command) -> None:
    script = next(word for word in command.words if word.endswith(".py"))
    known = {
        node.value
        for node in ast.walk(ast.parse((REPOSITORY / script).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    own = command.words[: command.words.index("--")] if "--" in command.words else command.words
    assert [word for word in own if word.startswith("--") and word not in known] == []
