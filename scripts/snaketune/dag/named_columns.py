"""Check the `columns:` of scenarios against the first row of each local file, before Snakemake removes any result."""

import difflib
from pathlib import Path

from snaketune.config.matrix import Matrix
from snaketune.config.scenario import Scenario
from snaketune.core.errors import UserError
from snaketune.data.normalize import get
from snaketune.data.raw_rows import Faults
from snaketune.data.read_files import read_rows
from snaketune.data.tasks import TASKS

# Files whose first row takes the whole file, or a second to import pyarrow: their job reports a wrong column.
LATER = (".json", ".parquet")
MISSING = object()


def check_columns(matrix: Matrix) -> None:
    """Raise a UserError for a column that a file lacks; other faults are left to the job that reads all rows."""
    for name, scenario in matrix.scenarios.items():
        for path in scenario.source.paths:
            if Path(path.removesuffix(".gz")).suffix.lower() not in LATER:
                _check_file(f"config/scenarios/{name}.yaml", matrix.root / path, scenario)


def _check_file(where: str, path: Path, scenario: Scenario) -> None:
    columns = scenario.source.columns.model_dump(exclude_none=True)
    if not columns:
        return
    row = next(read_rows({"hub": None, "path": str(path)}, Faults()), None)  # type: ignore[typeddict-item]
    if row is None:
        return
    if path.name.removesuffix(".gz").lower().endswith((".jsonl", ".ndjson")):
        # Of an object a line, others may have what the first one lacks.
        forms = (form for form in TASKS[scenario.task].formats if columns.keys() & {*form.keys})
        always = {"id", "group", "split", *next((form.keys for form in forms), ())}
        columns = {key: column for key, column in columns.items() if key in always}
    for key, column in columns.items():
        if get(row.content, column, MISSING) is MISSING:
            near = difflib.get_close_matches(column, row.content, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"{where}: source.columns.{key}: {path} has no column {column!r}; it has {', '.join(row.content)}{hint}"
            )
