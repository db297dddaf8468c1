"""The expected minutes of jobs, beside their time limits."""

from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.iocontainers import Wildcards

from snaketune.dag.durations import expected_seconds, in_all


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


@pytest.mark.parametrize(
    ("jobs", "cores", "known", "said"),
    [
        ([(1, 6.2), (1, 4)], 2, True, "roughly 7 minutes on 2 cores; half or twice"),
        ([(1, 6.2), (1, 4)], 1, True, "roughly 11 minutes on 1 core;"),
        ([(2, 3)] * 4, 2, True, "roughly 12 minutes on 2 cores;"),
        ([(1, 0.1)], 2, True, "roughly a minute on"),
        ([(1, 213)], 2, False, "roughly 3.5 hours on 2 cores; probably far less"),
    ],
)
def test_jobs_share_cores_and_end_no_sooner_than_the_longest(
    jobs: list[tuple[int, float]], cores: int, known: bool, said: str
) -> None:
    assert said in in_all(jobs, cores, known)
