"""Find settings of a technique with which a job fits the memory that there is."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from pydantic import ValidationError

from snaketune.config.technique import Technique
from snaketune.training.params import HALF

# From the base precision that loses least to the smallest.
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "nf4")
HALVES = 5


def _smaller_batches(technique: Technique, longest: int) -> Iterator[dict[str, Any]]:
    """Yield the micro-batch as it is, then smaller ones, down to one row."""
    yield {}
    rows = technique.micro_batch_rows
    for smaller in sorted({max(1, rows >> by) for by in range(1, HALVES)} - {rows}, reverse=True):
        yield {"micro_batch_tokens": smaller * longest}


def _precisions(technique: Technique, compute: str) -> Iterator[dict[str, Any]]:
    """Yield the base precision as it is, then those that take less; one of 16 bits can't be computed in the other."""
    yield {}
    # The numbers of an export are what is shipped.
    smaller = [] if technique.export else PRECISIONS[PRECISIONS.index(technique.base_precision) + 1 :]
    for name in smaller:
        if technique.adapter and {name, compute} != set(HALF):
            yield {"base_precision": name}


def variants(technique: Technique, longest: int, compute: str = "fp32") -> Iterator[dict[str, Any]]:
    """Yield changes of a technique from the one that costs least: first time alone, then precision.

    A smaller micro-batch is slower and changes no result, recomputed activations cost a third more time,
    and a smaller base precision changes what is learnt.
    """
    recomputing: list[dict[str, Any]] = [{}, {"gradient_checkpointing": True}]
    for precision, recomputed, batch in product(
        _precisions(technique, compute), recomputing, list(_smaller_batches(technique, longest))
    ):
        change = {**precision, **recomputed, **batch}
        try:
            Technique.model_validate({**technique.model_dump(), **change})
        except ValidationError:
            continue
        yield change


def fitting(
    technique: Technique,
    longest: int,
    estimate: Callable[[dict[str, Any]], float],
    limit: float,
    compute: str = "fp32",
) -> tuple[dict[str, Any], float] | None:
    """Return the first change with which the estimated bytes are within ``limit``, and that estimate."""
    found = ((change, estimate(change)) for change in variants(technique, longest, compute) if change)
    return next(((change, needed) for change, needed in found if needed <= limit), None)
