"""The end of a run names what to ship, how certain that is, and the exports that lost too much."""

from pathlib import Path
from typing import Any

import pytest

from snaketune.core import files, tables
from snaketune.reporting.result_table import results_table

ROW = {"model": "m", "scenario": "s", "metric": "accuracy", "train_seconds": "", "delta": ""}
PAIR = {"a": "base", "b": "lora", "difference": -0.4, "ci_low": -0.5, "ci_high": -0.3}
COMPARISON = {"model": "m", "scenario": "s", "recommended": "lora", "too_few": None, "pairs": [PAIR]}


def shown(results: Path, over: list[str], **changed: Any) -> list[str]:
    sizes = {"torch": 100, "onnx-fp32": 100, "onnx-int8": 30, "genai-int4": 20}
    rows = [
        ROW | {"technique": name, "seed": seed, "backend": backend, "value": 0.5, "artifact_bytes": size}
        for name, seed in (("base", 0), ("lora", 1))
        for backend, size in sizes.items()
    ]
    tables.write(results / "summary.csv", list(rows[0]), rows)
    files.write_json(results / "comparisons.json", [COMPARISON | changed])
    parity = results / "runs/m/s/lora/seed-1/parity.json"
    parity.parent.mkdir(parents=True)
    files.write_json(parity, {"over_budget": [], "over_budget_hops": over, "without_budget": []})
    return results_table(results).splitlines()


def test_an_export_over_its_budget_is_marked_and_not_recommended(tmp_path: Path) -> None:
    lines = shown(tmp_path, ["onnx-fp32-genai-int4"])
    assert lines[2].split()[:5] == ["untuned", "0.500", "0.500", "0.500", "0.500"]
    assert lines[3].split()[:5] == ["lora", "0.500", "0.500", "0.500", "0.500!"]
    assert lines[4:] == [
        "  !: over its parity budget",
        "  recommended: lora as int8 (+0.300 to +0.500 from the untuned model)",
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "lora as genai-int4 (+0.300 to +0.500 from the untuned model)"),
        ({"recommended": None}, "none"),
        ({"too_few": "not decided: 9 of the 20 test rows"}, "none, not decided: 9 of the 20 test rows"),
    ],
)
def test_what_is_recommended_comes_with_its_certainty(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    assert shown(tmp_path, [], **changed)[-1] == f"  recommended: {said}"
