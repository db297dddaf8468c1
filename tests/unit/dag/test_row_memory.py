"""Jobs that hold rows request memory by the size of their files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.iocontainers import Wildcards

from snaketune.core.files import read_yaml, write_json
from snaketune.dag.recipes import Recipes
from snaketune.dag.resources import JobResources

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "row", "low", "high"),
    [
        ("short.jsonl", "{}\n", 9, 11),  # as measured: 100,000 rows of 12 words take 0.94 GB, one of 300 words 21 KB
        ("long.jsonl", json.dumps({"text": "word " * 440}) + "\n", 20, 30),
        ("rows.json", json.dumps({"text": "word " * 40}), 9, 15),
        ("rows.csv.gz", "a row", 1, 3),
    ],
)
def test_memory_of_a_job_grows_with_the_rows_of_its_file(
    name: str, row: str, low: float, high: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    matrix: Any = SimpleNamespace(models={}, scenarios={"mine": SimpleNamespace(source=SimpleNamespace(paths=[name]))})
    needs, mine = JobResources(matrix, None), Wildcards(fromdict={"scenario": "mine"})
    asked = {}
    for rows in (0, 100_000):
        Path(name).write_text(row * rows)
        asked[rows] = [needs.memory(kind)(mine, 1) for kind in ("data", "tokens")]
    grown = [after - before for before, after in zip(asked[0], asked[100_000], strict=True)]
    assert grown[0] == grown[1]
    assert low <= grown[0] / 100 <= high


def test_memory_of_a_comparison_grows_with_the_test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = Recipes(read_yaml(ROOT / "config/config.yaml"), ROOT)
    monkeypatch.chdir(tmp_path)
    needs = JobResources(matrix, None)
    asked = []
    for rows in (0, 25_000):
        write_json(Path("results/data/classification/card.json"), {"kept": {"test": rows}})
        asked.append(
            [
                needs.memory("table")(Wildcards(), 1),
                needs.memory("parity")(Wildcards(fromdict={"scenario": "classification"}), 1),
            ]
        )
    samples = matrix.experiment.evaluation.bootstrap_samples
    assert [after - before for before, after in zip(*asked, strict=True)] == [4 * samples * 25_000 // 10**6] * 2
