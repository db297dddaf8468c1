"""Every task runs from its data to a row of the summary, on a small model."""

from typing import Any

import pytest
from support.experiments import SMALL
from support.workspace import REPOSITORY, Workspace

from snaketune.core.files import read_yaml, write_jsonl

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


def run(copy: Workspace, scenarios: dict[str, Any]) -> list[dict[str, str]]:
    """The small model tuned by LoRA on each scenario; returns the rows of the summary."""
    for name, scenario in scenarios.items():
        copy.write(f"config/scenarios/{name}.yaml", scenario)
    copy.write(copy.experiment, {**SMALL, "techniques": ["lora"], "scenarios": list(scenarios), "precisions": []})
    assert "Traceback" not in copy.run()
    page = (copy.path / "results/report.html").read_text()
    assert all(f"{name} with" in page for name in scenarios)
    return copy.summary()


def test_two_lines_make_a_scenario_of_each_shape_of_the_users_rows(copy: Workspace) -> None:
    for shape, row in SHAPES.items():
        write_jsonl(copy.path / f"data/{shape}.jsonl", map(row, range(500)))
    tasks = {shape: "language-modeling" if shape == "text" else "chat" for shape in SHAPES}
    lines = {shape: {"task": task, "source": {"path": f"data/{shape}.jsonl"}} for shape, task in tasks.items()}
    rows = run(copy, lines)
    assert [(row["scenario"], row["technique"]) for row in rows] == [(s, t) for s in SHAPES for t in ("base", "lora")]
    value = {(row["scenario"], row["technique"]): float(row["value"]) for row in rows}
    assert all(row["metric"] == "perplexity" and row["higher_is_better"] == "false" for row in rows)
    assert all(value[shape, "lora"] < value[shape, "base"] for shape in SHAPES)


# The tasks that the shapes above don't have.
BUILTIN = ["ner", "translation", "qa", "music"]


@pytest.mark.long
def test_the_built_in_scenarios_run(copy: Workspace) -> None:
    small: dict[str, Any] = {}
    for name in BUILTIN:
        content = read_yaml(REPOSITORY / f"config/scenarios/{name}.yaml")
        small[name] = {**content, "rows": {"train": 60, "validation": 6, "test": 8}, "max_new_tokens": 12}
        small[name] |= {"max_tokens": 250, "gate": "warn"}
    rows = run(copy, small)
    metrics = {row["scenario"]: row["metric"] for row in rows}
    assert metrics == {"ner": "entity_f1", "translation": "chrf", "qa": "f1", "music": "abc_validity"}
    for row in rows:
        assert int(row["n"]) == 8
        assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
