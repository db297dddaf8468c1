"""Raw rows with their places, the values in them, and the report of what is wrong with them."""

from typing import Any, NamedTuple

from snaketune.core.errors import UserError

SHOWN = 10
EMPTY: tuple[Any, ...] = (None, "", [], {})


class Row(NamedTuple):
    """A raw row: its place as a user would look it up, a unique id, the split of its file, if it has one, and its file."""

    where: str
    key: str
    split: str | None
    content: dict[str, Any]
    file: str = ""


class Cell(NamedTuple):
    """A value of a row and the name of its column."""

    value: Any
    name: str


Cells = dict[str, Cell]


class Fault(Exception):
    """A fault in a field of a row."""

    def __init__(self, field: str, fault: str):
        super().__init__(f"{field}: {fault}")


class Faults:
    """Count the faults of the data; keep the first ten to show."""

    def __init__(self) -> None:
        self.count, self.shown = 0, list[str]()

    def add(self, where: str, fault: str) -> None:
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{where}: {fault}")

    def stop(self) -> None:
        """Raise a UserError if there is any fault."""
        if self.count == 1:
            raise UserError(self.shown[0])
        if self.count:
            more = [f"and {self.count - SHOWN} more"] if self.count > SHOWN else []
            raise UserError("\n  ".join([f"{self.count} faults in the data; nothing was written", *self.shown, *more]))


def describe(value: Any) -> str:
    """Describe a value for a message: its type, and the value itself if it is short."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(str, value)) or 'none'}"[:80]
    if isinstance(value, list):
        return f"a list of {len(value)}"
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shown
    return f"the number {shown}"


def string(cell: Cell) -> str:
    if not isinstance(cell.value, str):
        raise Fault(cell.name, f"expected a string, found {describe(cell.value)}")
    if "\0" in cell.value:
        raise Fault(cell.name, "a NUL character")
    return cell.value


def text(cell: Cell) -> str:
    """Return a string without surrounding white space; null becomes the empty string, which the gate counts."""
    return "" if cell.value is None else string(cell).strip()
