"""Raw rows with their places, and what is wrong with them, as users are told."""

from typing import Any, NamedTuple

from snaketune.core.errors import UserError

SHOWN = 10


class Row(NamedTuple):
    """A raw row: where it stands, as a user would look for it, and an id that no other row has."""

    where: str
    key: str
    split: str | None
    content: dict[str, Any]


class Faults:
    """What is wrong with the data: all is counted, the first ten are shown."""

    def __init__(self) -> None:
        self.count, self.shown = 0, list[str]()

    def add(self, where: str, fault: str) -> None:
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{where}: {fault}")

    def stop(self) -> None:
        """Raise a UserError where there is any fault."""
        if self.count == 1:
            raise UserError(self.shown[0])
        if self.count:
            more = [f"and {self.count - SHOWN} more"] if self.count > SHOWN else []
            raise UserError("\n  ".join([f"{self.count} faults in the data; nothing was written", *self.shown, *more]))


def found(value: Any) -> str:
    """A value as a message shows it: its type, and a short one itself."""
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
