"""Estimates of memory and time against recorded peaks, and against the papers' formulas."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from snaketune.config.technique import Technique
from snaketune.dag.estimates import (
    FLOAT,
    START_SECONDS,
    UNKNOWN,
    Shape,
    adapter_parameters,
    training_bytes,
    training_memory,
    training_seconds,
)

REPOSITORY = Path(__file__).parents[3]
SHAPE = Shape(512, 8, 1920, 8, 8, 8192, 512, True)
# Peak MB of the largest rank of four steps of 16 rows on the 36-million-parameter model, by ranks;
# the longest row that these steps met has 131 tokens. Processor AMD EPYC, torch on the CPU, glibc.
LONGEST = 131
PEAKS = {
    "full": {1: 2456, 2: 1820, 4: 1482},
    "lora": {1: 2372, 2: 1508, 4: 1086},
    "qlora": {1: 2383, 2: 1456, 4: 1038},
    "dora": {1: 3399, 2: 2048, 4: 1377},
    "peft-ia3": {1: 2502, 2: 1541, 4: 1071},
    "deepspeed": {1: 2894, 2: 2041, 4: 1547},
    "zero3": {1: 2580, 2: 2235, 4: 1719},
}
# The paper's count of trained parameters, of models of both kinds.
TRAINED = {"lora": 630_784, "dora": 681_984, "peft-ia3": 62_464, "peft-prefix": 163_840}


def recipe(technique: str, ranks: int = 1, **changed: Any) -> dict[str, Any]:
    content = yaml.safe_load((REPOSITORY / f"config/techniques/{technique}.yaml").read_text())
    resolved = Technique.model_validate(content).model_dump()
    return {**resolved, "world_size": ranks, "batch_rows": 16, **changed}


@pytest.mark.parametrize(("technique", "ranks"), [(name, ranks) for name, of in PEAKS.items() for ranks in of])
def test_an_estimate_is_at_least_the_recorded_peak_and_at_most_half_as_much_more(technique: str, ranks: int) -> None:
    estimated = training_memory(recipe(technique, ranks, steps=4), SHAPE, LONGEST).total
    assert 1.0 <= estimated / 1e6 / PEAKS[technique][ranks] <= 1.5


def test_parameters_are_those_of_the_built_model() -> None:
    assert SHAPE.parameters == 36_184_576
    assert pytest.approx(3.82e9, rel=0.01) == UNKNOWN.parameters


@pytest.mark.parametrize("technique", TRAINED)
def test_trained_parameters(technique: str) -> None:
    assert adapter_parameters(SHAPE, recipe(technique)["adapter"]) == TRAINED[technique]


@pytest.mark.parametrize("ranks", [2, 8])
def test_each_zero_stage_divides_what_its_paper_says(ranks: int) -> None:
    whole = FLOAT * SHAPE.parameters
    for stage in range(4):
        engine = {"type": "deepspeed", "zero_stage": stage, "offload": "none"}
        found = training_memory(recipe("full", ranks, engine=engine), SHAPE, 128)
        assert found.optimizer == pytest.approx(3 * whole / (ranks if stage >= 1 else 1))
        assert found.gradients == pytest.approx(whole / (ranks if stage >= 2 else 1))
        assert found.weights == pytest.approx(whole / (ranks if stage >= 3 else 1))


def test_a_quantized_base_takes_an_eighth_of_its_layers_and_more_rows_more() -> None:
    plain, quantized = (training_memory(recipe(name), UNKNOWN, 512) for name in ("lora", "qlora"))
    assert 0.12 < quantized.weights / plain.weights < 0.2
    assert training_bytes(recipe("lora"), UNKNOWN, 1024) > training_bytes(recipe("lora"), UNKNOWN, 512)
    assert training_bytes(recipe("lora"), UNKNOWN, 512) > training_bytes(
        recipe("lora", micro_batch_rows=1), UNKNOWN, 512
    )


def test_a_job_holds_all_its_ranks_and_what_launches_them() -> None:
    one = training_memory(recipe("zero2", 4), SHAPE, 128).total
    assert 4 * one < training_bytes(recipe("zero2", 4), SHAPE, 128) < 4 * one + 300e6


def test_twice_the_cores_halve_the_time_but_for_the_start() -> None:
    one, two = (training_seconds(10**9, 10**6, cores) for cores in (1, 2))
    assert (one - START_SECONDS) / (two - START_SECONDS) == pytest.approx(2)
