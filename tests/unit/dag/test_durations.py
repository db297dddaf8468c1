"""The expected minutes of jobs, beside their time limits."""

from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.iocontainers import Wildcards

from plan_resources import Job, duration, together
from snaketune.dag.durations import expected_seconds


def needs_of(parameters: int, rows: int) -> Any:
    """Return what `expected_seconds` asks of JobResources, on a machine without GPUs."""
    return SimpleNamespace(
        counts_gpus=False,
        matrix=SimpleNamespace(models={"m": None}),
        sizes=SimpleNamespace(shape=lambda _: SimpleNamespace(parameters=parameters), test_rows=lambda _: rows),
        training_minutes=lambda *_: 85,
        evaluation_gpus=lambda _: 0,
    )


@pytest.mark.parametrize(
    ("rule", "measured"), [("train_adapter", 185), ("evaluate_torch", 88), ("evaluate_onnx", 75), ("export_onnx", 25)]
)
def test_smollm2_took_as_long_as_expected_within_a_factor_of_two(rule: str, measured: float) -> None:
    """Measured on two cores with LoRA, 575 training rows and 164 test rows."""
    wildcards = Wildcards(fromdict={"model": "m", "scenario": "s", "technique": "lora"})
    expected = expected_seconds(needs_of(134_515_008, 164), rule, wildcards)
    assert measured / 2 <= expected <= 2 * measured


def test_what_has_no_model_takes_seconds() -> None:
    assert expected_seconds(needs_of(10**9, 1000), "summarize", Wildcards(fromdict={})) < 10


def test_jobs_share_cores_and_end_no_sooner_than_the_longest() -> None:
    def job(cores: int, minutes: float) -> Job:
        return Job("rule", None, cores, 0, 0, 0, 60, minutes, 0, 0)

    assert together([job(1, 6), job(1, 4)], 2) == 6
    assert together([job(1, 6), job(1, 4)], 1) == 10
    assert together([job(2, 3)] * 4, 2) == 12


@pytest.mark.parametrize(
    ("minutes", "said"), [(0.2, "1 minute"), (6.2, "7 minutes"), (99, "99 minutes"), (213, "3.5 hours"), (7200, "120 hours")]
)  # fmt: skip
def test_a_duration_has_two_digits(minutes: float, said: str) -> None:
    assert duration(minutes) == said
