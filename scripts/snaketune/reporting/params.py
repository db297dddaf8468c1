"""Job parameters of the scripts that summarize, report and package results."""

from typing import Any, TypedDict

# [model, scenario, technique, seed]; the untuned model is the technique `base` with seed 0.
Cell = list[Any]


def named(cell: Cell) -> dict[str, Any]:
    """Return the parts of a cell by their names in the summary."""
    return dict(zip(("model", "scenario", "technique", "seed"), cell, strict=True))


class SummaryParams(TypedDict):
    """Parameters of summarize.py."""

    cells: list[Cell]
    scenarios: dict[str, dict[str, Any]]
    precisions: dict[str, list[str]]
    calibrated: list[str]
    bootstrap_samples: int
    confidence: float
    hosted: list[dict[str, Any]]


class ReportParams(SummaryParams):
    """Parameters of write_report.py; the templates are there by their digests."""

    benchmarked: bool
    techniques: dict[str, dict[str, Any]]
    training: dict[str, Any]
    models: dict[str, str]
    cards: dict[str, dict[str, Any]]
    template: dict[str, str]


class TableParams(TypedDict):
    """Parameters of write_technique_table.py."""

    model: str | None
    scenarios: list[str]
    techniques: list[str]
    confidence: float
    properties: dict[str, Any] | None
    property_runs: list[tuple[str, int, int]]
    ranks: dict[str, int]
    offloaded: list[str]
    expected: dict[str, dict[str, dict[str, str]]]


class PackageParams(TypedDict):
    """Parameters of package_model.py; template and program are there by their digests."""

    cell: Cell
    precision: str
    export: dict[str, Any]
    model: dict[str, Any]
    scenario: dict[str, Any]
    technique: str
    confidence: float
    template: dict[str, str]
    program: str
