"""Estimates of memory against those measured by `make estimates`."""

import json
from pathlib import Path
from typing import Any

import pytest

import measure_memory
from snaketune.config.technique import Technique
from snaketune.core.files import read_json, read_yaml
from snaketune.dag.devices import training_gpu_bytes
from snaketune.dag.shape import Shape

ROOT = Path(__file__).parents[3]
MEASURED: dict[str, Any] = read_json(ROOT / "benchmarks/estimates.json")["cells"]


def test_every_cell_is_measured_and_shown() -> None:
    assert set(MEASURED) == {json.dumps(cell) for cell in measure_memory.cells()}
    assert measure_memory.table(MEASURED) in (ROOT / "docs/scale.md").read_text()


@pytest.mark.parametrize("cell", MEASURED)
def test_an_estimate_is_at_most_half_as_much_more_than_was_measured(cell: str) -> None:
    for kind, (estimated, measured) in measure_memory.estimated_and_measured(json.loads(cell), MEASURED[cell]).items():
        # Norms of queries and keys, and Adam's count of steps for each tensor, aren't counted.
        assert 0.99 <= estimated / measured <= 1.5, kind


def test_qlora_of_eight_billion_parameters_is_planned_on_a_gpu_of_12_gb() -> None:
    shape = Shape.of(read_yaml(ROOT / "config/models/qwen3-8b.yaml")["config"])
    qlora = Technique.model_validate(read_yaml(ROOT / "config/techniques/qlora.yaml")).recipe("qwen3")
    batch = {"batch_rows": 8, "micro_batch_tokens": 2048, "gradient_checkpointing": True, "compute_precision": "fp32"}
    assert training_gpu_bytes({**qlora, **batch}, shape, 2048) <= 12e9
