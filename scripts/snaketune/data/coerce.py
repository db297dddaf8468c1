"""The values of a row as the types that a shape needs; what is of another type is the row's fault."""

from typing import Any

from snaketune.data.raw_rows import found

# Of a shape's keys: their values in a row, and the columns that these stand in.
Values = dict[str, Any]
Names = dict[str, str]


class Fault(Exception):
    """What is wrong with a row."""

    def __init__(self, field: str, fault: str):
        super().__init__(f"{field}: {fault}")


def string(value: Any, name: str) -> str:
    """A string that is text."""
    if not isinstance(value, str):
        raise Fault(name, f"expected a string, found {found(value)}")
    if "\0" in value:
        # JSON and text were read without; Parquet and the hub may have it.
        raise Fault(name, "a NUL character")
    return value


def text(value: Any, name: str) -> str:
    """A string without white space around it; null becomes the empty string, which the gate counts."""
    return "" if value is None else string(value, name).strip()


def label(value: Any, name: str) -> str:
    """A text, or a whole number as it is written in CSV."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise Fault(name, f"expected a string or a whole number, found {found(value)}")
    return text(value, name)


def strings(value: Any, name: str) -> list[str]:
    """A list of words, or one string of them with spaces between."""
    if isinstance(value, str):
        return string(value, name).split()
    if not isinstance(value, list):
        raise Fault(name, f"expected a list of strings, found {found(value)}")
    for number, one in enumerate(value):
        if not isinstance(one, str) or not one.strip() or one != one.strip() or "\0" in one:
            raise Fault(f"{name}[{number}]", f"expected a word, found {found(one)}")
    return value
