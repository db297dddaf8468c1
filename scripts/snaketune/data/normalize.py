"""Raw rows as examples: their shape is detected from their keys, and columns are mapped."""

from typing import Any

from snaketune.config.templates import Example, template_fields
from snaketune.core.layout import SPLITS
from snaketune.data.coerce import Fault, Names
from snaketune.data.examples import default_group
from snaketune.data.formats import SHAPES, Shape
from snaketune.data.raw_rows import Faults, Row, found


def reach(content: Any, path: str) -> Any:
    """The value at ``path``, where `a.b` is `b` of the object `a`.

    Raises:
        KeyError: it isn't there; the message says what is.
    """
    if isinstance(content, dict) and path in content:
        return content[path]
    first, _, rest = path.partition(".")
    if rest and isinstance(content, dict) and isinstance(content.get(first), dict):
        return reach(content[first], rest)
    raise KeyError(", ".join(map(str, content)) or "none")


def has(content: dict[str, Any], path: str) -> bool:
    try:
        reach(content, path)
    except KeyError:
        return False
    return True


class Shaper:
    """Makes examples of raw rows; what it can't read goes to ``faults``."""

    def __init__(self, scenario: dict[str, Any], faults: Faults):
        self.task, self.faults = scenario["task"], faults
        self.columns = {key: name for key, name in scenario["source"]["columns"].items() if name}
        self.one_file = isinstance(scenario["source"]["path"], str)
        self.needs_language = "language" in template_fields(scenario["prompt"])
        self.shape: tuple[str, str] | None = None
        self.ids: dict[str, str] = {}

    def __call__(self, row: Row) -> Example | None:
        """The example that a row holds, with id, group, where and, where the data give it, split."""
        try:
            fields = self._fields(row)
            example = {"id": row.key, "where": row.where, **fields}
            if "id" in self.columns:
                example["id"] = self._own_id(row)
            example["group"] = self._group(row, fields)
            if split := self._split(row):
                example["split"] = split
        except Fault as fault:
            self.faults.add(row.where, str(fault))
            return None
        return example

    def _names(self, shape: Shape, content: dict[str, Any]) -> Names:
        """The column of each key of a shape; of several native names the one that is there."""
        native = shape.keys | {key: (key,) for key in shape.optional}
        return {
            key: self.columns.get(key) or next((name for name in names if name in content), names[0])
            for key, names in native.items()
        }

    def _fits(self, shape: Shape, content: dict[str, Any]) -> bool:
        names = self._names(shape, content)
        return all(has(content, names[key]) for key in shape.keys)

    def _detect(self, row: Row) -> str:
        shapes = SHAPES[self.task]
        fitting = [name for name, shape in shapes.items() if self._fits(shape, row.content)]
        mapped = [name for name, shape in shapes.items() if self.columns.keys() & shape.keys.keys()]
        if choice := next((name for name in [*mapped, *fitting] if not mapped or name in mapped), None):
            return choice
        other = next(
            (task for task, known in SHAPES.items() if any(self._fits(shape, row.content) for shape in known.values())),
            None,
        )
        hint = f"; they look like task: {other}" if other else ""
        raise Fault(
            f"the keys {', '.join(row.content) or 'none'}",
            f"expected {' or '.join(shapes)} for task: {self.task}; map others with `columns:` in the scenario{hint}",
        )

    def _fields(self, row: Row) -> dict[str, Any]:
        if self.shape is None:
            self.shape = (self._detect(row), row.where)
        name, first = self.shape
        shape = SHAPES[self.task][name]
        names = self._names(shape, row.content)
        values = {}
        for key in [*shape.keys, *shape.optional]:
            try:
                values[key] = reach(row.content, names[key])
            except KeyError as error:
                if key in shape.keys:
                    raise self._missing(row, names[key], error.args[0], first) from None
        if "language" in shape.optional and "language" not in values and self.needs_language:
            raise Fault(names["language"], "missing; add the column, or name the language in `prompt:` of the scenario")
        return shape.build(values, names)

    def _missing(self, row: Row, column: str, keys: str, first: str) -> Fault:
        assert self.shape is not None
        for name, shape in SHAPES[self.task].items():
            if name != self.shape[0] and self._fits(shape, row.content):
                return Fault(
                    column, f"missing: this row has the shape {name}, but {first} has {self.shape[0]}; use one shape"
                )
        return Fault(
            column,
            f"expected a value, found nothing; there are the keys {keys} (map others with `columns:` in the scenario)",
        )

    def _own_id(self, row: Row) -> str:
        column = self.columns["id"]
        value = reach(row.content, column) if has(row.content, column) else None
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise Fault(column, f"expected a string or a whole number, found {found(value)}")
        if (other := self.ids.setdefault(str(value), row.where)) != row.where:
            raise Fault(column, f"{value!r} is the id of {other} too; expected another for each row")
        return str(value)

    def _group(self, row: Row, fields: dict[str, Any]) -> str:
        column = self.columns.get("group", "group")
        if has(row.content, column) and (value := reach(row.content, column)) not in (None, ""):
            return str(value)
        if "group" in self.columns:
            raise Fault(column, "expected the row's group, found nothing")
        return default_group(self.task, fields)

    def _split(self, row: Row) -> str | None:
        column = self.columns.get("split", "split")
        if not self.one_file or ("split" not in self.columns and "split" not in row.content):
            return row.split
        value = reach(row.content, column) if has(row.content, column) else None
        if value not in SPLITS:
            raise Fault(column, f"expected {', '.join(SPLITS)}, found {found(value)}")
        return str(value)
