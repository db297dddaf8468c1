"""Every task runs from its data to a row of the summary, on a small model."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.workspace import REPOSITORY, Workspace

WORDS = ["red", "round", "small", "late", "cold", "loud", "plain", "quick", "soft", "tall", "wide", "young"]


def question(number: int) -> str:
    """A sentence unlike the others."""
    return " ".join(WORDS[(number // 12**place) % 12] for place in range(3)) + f" thing {number} is where?"


def messages(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": question(number)},
        {"role": "assistant", "content": f"On shelf {number}, I think."},
    ]


# The others are brought into these, as the unit tests hold.
SHAPES: dict[str, Any] = {
    "messages": lambda n: {"messages": messages(n)},
    "alpaca": lambda n: {"instruction": "Find it.", "input": question(n), "output": f"On shelf {n}, I think."},
    "text": lambda n: {"text": f"{question(n)} It lies on shelf {n}."},
}


def run(finished: Workspace, path: Path, scenarios: dict[str, Any]) -> list[dict[str, str]]:
    """The small model tuned by LoRA on each scenario; returns the rows of the summary."""
    other = Workspace(path / "copy")
    shutil.copytree(finished.path, other.path, symlinks=True)
    for name, scenario in scenarios.items():
        if isinstance(scenario, str):
            (other.path / f"config/scenarios/{name}.yaml").write_text(scenario)
        else:
            other.write(f"config/scenarios/{name}.yaml", scenario)
    for shape, row in SHAPES.items():
        file = other.path / f"data/{shape}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row(number)) + "\n" for number in range(500)))
    experiment = yaml.safe_load((other.path / other.experiment).read_text())
    experiment |= {"techniques": ["lora"], "scenarios": list(scenarios), "precisions": []}
    other.write(other.experiment, experiment)
    ran = other.forked("--cores", "2")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    assert "Traceback" not in ran.stdout + ran.stderr
    page = (other.path / "results/report.html").read_text()
    assert all(f"{name} with" in page for name in scenarios)
    with (other.path / "results/summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_lines_make_a_scenario_of_each_shape_of_the_users_rows(finished: Workspace, tmp_path: Path) -> None:
    task = {shape: "language-modeling" if shape == "text" else "chat" for shape in SHAPES}
    lines = {shape: f"task: {task[shape]}\nsource: {{path: data/{shape}.jsonl}}\n" for shape in SHAPES}
    rows = run(finished, tmp_path, lines)
    assert [(row["scenario"], row["technique"]) for row in rows] == [(s, t) for s in SHAPES for t in ("base", "lora")]
    value = {(row["scenario"], row["technique"]): float(row["value"]) for row in rows}
    assert all(row["metric"] == "perplexity" and row["higher_is_better"] == "false" for row in rows)
    assert all(value[shape, "lora"] < value[shape, "base"] for shape in SHAPES)


# The tasks that the shapes above don't have.
BUILTIN = ["ner", "translation", "qa", "music"]


@pytest.mark.long
def test_the_built_in_scenarios_run(finished: Workspace, tmp_path: Path) -> None:
    small: dict[str, Any] = {}
    for name in BUILTIN:
        content = yaml.safe_load((REPOSITORY / f"config/scenarios/{name}.yaml").read_text())
        small[name] = {**content, "rows": {"train": 60, "validation": 6, "test": 8}, "max_new_tokens": 12}
        small[name] |= {"max_tokens": 250, "gate": "warn"}
    rows = run(finished, tmp_path, small)
    metrics = {row["scenario"]: row["metric"] for row in rows}
    assert metrics == {"ner": "entity_f1", "translation": "chrf", "qa": "f1", "music": "abc_validity"}
    for row in rows:
        assert int(row["n"]) == 8
        assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
