"""The answers to the test rows, side by side: what tuning fixed and what it broke."""

import os
from pathlib import Path

import numpy as np

from snaketune.core import files
from snaketune.core.tables import Row
from snaketune.evaluation.metrics import value
from snaketune.reporting.results import row_statistics

# Characters of a text and rows of a scenario that the page holds; the rest is in the files.
LONGEST, MOST = 1500, 5000


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def asked(row: Row) -> str:
    """Return what a test row asks; of plain text, the text."""
    if "messages" not in row:
        return shortened(str(row["text"]))
    *before, _ = row["messages"]
    if len(before) == 1:
        return shortened(str(before[0]["content"]))
    return shortened("\n".join(f"{one['role']}: {one.get('content') or ''}" for one in before))


def beginning(questions: list[str]) -> str:
    """Return the lines that every question begins with: the scenario's instruction."""
    common = os.path.commonprefix(questions) if len(questions) > 1 else ""  # noqa: RUF071
    return common[: common.rfind("\n") + 1]


def answered(run: Path, metric: str) -> Row:
    """Return a model's answer to each row, if it wrote one, and the row's own value of the metric."""
    rows = files.read_jsonl(run / "evaluation/torch.predictions.jsonl")[:MOST]
    scores = value(metric, row_statistics(run, "torch", metric)[:MOST])
    texts = [shortened(row["prediction"]) for row in rows] if "prediction" in rows[0] else None
    return {"texts": texts, "scores": [float(f"{score:.4g}") for score in np.asarray(scores)]}


def side_by_side(test_rows: Path, untuned: Path, runs: dict[str, Path], comparison: Row) -> Row:
    """Return the test rows with the answers of the untuned model and of one run of each technique.

    Args:
        test_rows: test.jsonl of the scenario.
        untuned, runs: directories of runs; of each technique, that of its first seed.
    """
    metric = comparison["metric"]
    found = files.read_jsonl(untuned / "evaluation/torch.predictions.jsonl")[:MOST]
    texts = {row["id"]: row for row in files.read_jsonl(test_rows)}
    questions = [asked(texts[row["id"]]) for row in found]
    begin = beginning(questions)
    return {
        "metric": metric,
        "higher": comparison["higher_is_better"],
        "ids": [row["id"] for row in found],
        "beginning": begin.strip(),
        "asked": [question[len(begin) :] for question in questions],
        "expected": [shortened(str(row.get("reference", ""))) for row in found],
        "untuned": answered(untuned, metric),
        "tuned": {name: answered(run, metric) for name, run in runs.items()},
        "left_out": comparison["n"] - len(found),
    }
