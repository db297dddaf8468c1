"""Convert raw rows to examples: detect their format from their keys, map their columns."""

from typing import Any

from snaketune.config.templates import template_fields
from snaketune.core.layout import SPLITS
from snaketune.data.examples import Example, Fields
from snaketune.data.formats import ALIASES, Format
from snaketune.data.params import ScenarioParams
from snaketune.data.raw_rows import Cell, Fault, Faults, Row, describe
from snaketune.data.tasks import TASKS


def value_at(content: dict[str, Any], path: str) -> Any:
    """Return the value at ``path``, where `a.b` is `b` of the object `a`.

    Raises:
        KeyError: it isn't there; the message lists the keys that are.
    """
    if path in content:
        return content[path]
    first, _, rest = path.partition(".")
    if rest and isinstance(content.get(first), dict):
        return value_at(content[first], rest)
    raise KeyError(", ".join(content) or "none")


def get(content: dict[str, Any], path: str, missing: Any = None) -> Any:
    try:
        return value_at(content, path)
    except KeyError:
        return missing


class Normalizer:
    """Convert rows to examples; what is wrong with a row is added to ``faults``."""

    def __init__(self, scenario: ScenarioParams, faults: Faults):
        self.name, self.task, self.faults = scenario["task"], TASKS[scenario["task"]], faults
        self.columns = {key: name for key, name in scenario["source"]["columns"].items() if name}
        self.split_by_column = isinstance(scenario["source"]["path"], str | list)
        self.needs_language = "language" in template_fields(scenario["prompt"])
        # Of each file, and the row that tells it.
        self.formats: dict[str, tuple[Format, str]] = {}
        self.ids: dict[str, str] = {}

    def __call__(self, row: Row) -> Example | None:
        try:
            fields = self._fields(row)
            own_id = self._own_id(row) if "id" in self.columns else row.key
            return Example(own_id, fields, self._group(row, fields), self._split(row), where=row.where, file=row.file)
        except Fault as fault:
            self.faults.add(row.where, str(fault))
            return None

    def _names(self, form: Format, content: dict[str, Any]) -> dict[str, str]:
        """Return the column of each key of a format: as configured, or the usual name that is there."""
        usual = {
            key: ALIASES[key] if key not in content and ALIASES.get(key) in content else key
            for key in (*form.keys, *form.optional)
        }
        return usual | {key: self.columns[key] for key in usual.keys() & self.columns.keys()}

    def _fits(self, form: Format, content: dict[str, Any]) -> bool:
        names = self._names(form, content)
        return all(get(content, names[key], missing=self) is not self for key in form.keys)

    def _detect(self, content: dict[str, Any]) -> Format:
        formats = self.task.formats
        mapped = [form for form in formats if self.columns.keys() & {*form.keys}]
        for form in mapped or formats:
            if mapped or self._fits(form, content):
                return form
        others = [name for name, task in TASKS.items() if any(self._fits(form, content) for form in task.formats)]
        hint = f"; they look like task: {others[0]}" if others else ""
        raise Fault(
            f"the keys {', '.join(content) or 'none'}",
            f"expected {' or '.join(form.name for form in formats)} for task: {self.name}; map others with `columns:` in the scenario{hint}",
        )

    def _fields(self, row: Row) -> Fields:
        if row.file not in self.formats:
            self.formats[row.file] = self._detect(row.content), row.where
        form, first = self.formats[row.file]
        names = self._names(form, row.content)
        cells = {}
        for key, name in names.items():
            try:
                cells[key] = Cell(value_at(row.content, name), name)
            except KeyError as error:
                if key not in form.keys:
                    continue
                fault = f"expected a value, found nothing; there are the keys {error.args[0]} (map others with `columns:` in the scenario)"
                if others := [other.name for other in self.task.formats if self._fits(other, row.content)]:
                    fault = f"missing: this row has the format {others[0]}, but {first} has {form.name}; use one format"
                raise Fault(name, fault) from None
        for key in form.unused:
            if key not in names.values() and row.content.get(key) not in (None, "", [], {}, 1):
                raise Fault(key, f"isn't used, found {describe(row.content[key])}; leave the column out of the file")
        if self.needs_language and "language" in form.optional and "language" not in cells:
            raise Fault(names["language"], "missing; add the column, or name the language in `prompt:` of the scenario")
        return form.build(cells)

    def _own_id(self, row: Row) -> str:
        column = self.columns["id"]
        value = get(row.content, column)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "" or "\0" in str(value):
            raise Fault(column, f"expected a string or a whole number, found {describe(value)}")
        if (other := self.ids.setdefault(str(value), row.where)) != row.where:
            raise Fault(column, f"{value!r} is the id of {other} too; expected another for each row")
        return str(value)

    def _group(self, row: Row, fields: Fields) -> str:
        column = self.columns.get("group", "group")
        value = get(row.content, column)
        if value not in (None, ""):
            return str(value)
        if "group" in self.columns:
            raise Fault(column, "expected the row's group, found nothing")
        return self.task.default_group(fields)

    def _split(self, row: Row) -> str:
        """Return the split that the data give, or an empty string."""
        column = self.columns.get("split", "split")
        if not self.split_by_column or ("split" not in self.columns and "split" not in row.content):
            return row.split or ""
        value = get(row.content, column)
        if value not in SPLITS:
            raise Fault(column, f"expected {', '.join(SPLITS)}, found {describe(value)}")
        return str(value)
