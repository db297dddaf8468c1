"""Job parameters of prepare_data.py: the parts of a scenario that decide which rows there are; see config/scenario.py."""

from typing import Any, NotRequired, TypedDict


class PartParams(TypedDict):
    path: str
    weight: float | None


class SourceParams(TypedDict):
    """Exactly one of builtin, path and hub is given."""

    builtin: str | None
    options: dict[str, Any]
    path: str | dict[str, str] | list[PartParams] | None
    hub: str | None
    revision: str | None
    configuration: str | None
    splits: dict[str, str]
    columns: dict[str, str | None]


class NearDuplicatesParams(TypedDict):
    threshold: float
    permutations: int


class ScenarioParams(TypedDict):
    task: str
    source: SourceParams
    prompt: str
    answer: str
    rows: dict[str, int] | None
    rows_per_label: dict[str, int] | None
    split: dict[str, float]
    near_duplicates: NearDuplicatesParams
    gate: str
    budgets: dict[str, float]
    phone_regions: NotRequired[list[str]]


class DataParams(TypedDict):
    scenario: ScenarioParams
    source_digests: dict[str, str]
    corpus_code: NotRequired[str | None]


def origin(source: SourceParams) -> str:
    """Describe a source in a few words."""
    if source["hub"]:
        return f"{source['hub']}@{(source['revision'] or '')[:12]}"
    if isinstance(source["path"], dict):
        return ", ".join(dict.fromkeys(sorted(source["path"].values())))
    if isinstance(source["path"], list):
        return ", ".join(part["path"] for part in source["path"])
    return str(source["path"] or source["builtin"])
