"""Tools and their calls in a raw row, checked and converted to what chat templates expect."""

import json
from typing import Any

from snaketune.data.raw_rows import EMPTY, Cell, Fault, describe
from snaketune.data.strict_json import checked, parsed


def _parsed(cell: Cell) -> Any:
    """Return a value that may be given as a JSON text; otherwise it must be one that JSON can write.

    Parquet and the hub have other values, and fill in the keys of other rows with nulls.
    """
    try:
        found = parsed(cell.value) if isinstance(cell.value, str) else cell.value
    except ValueError as error:
        raise Fault(cell.name, error.args[-1]) from None
    try:
        return checked({cell.name: found})[cell.name]
    except ValueError as error:
        name, _, flaw = error.args[0].partition(": ")
        raise Fault(name, flaw) from None


def _without_nulls(cell: Cell) -> Cell:
    """Refuse an object with nulls: those of Parquet and the hub are keys of other rows, which would be learned."""
    # Grows while it is read.
    found = [] if isinstance(cell.value, str) else [cell]
    for one in found:
        if isinstance(one.value, dict):
            found += [Cell(value, f"{one.name}.{key}") for key, value in one.value.items()]
            if nulls := [key for key, value in one.value.items() if value is None]:
                hint = f"leave the key out, or give {cell.name} as a JSON text (Parquet gives a row the keys of others)"
                raise Fault(f"{one.name}.{nulls[0]}", f"null; {hint}")
        elif isinstance(one.value, list):
            found += [Cell(value, f"{one.name}[{number}]") for number, value in enumerate(one.value)]
    return cell


def _listed(cell: Cell, expected: str) -> list[dict[str, Any]]:
    """Return a list of objects, which may be given as a JSON text, with the function that each has, or is."""
    found: Any = None if cell.value in EMPTY else _parsed(cell)
    if found in EMPTY:
        return []
    for one in found if isinstance(found, list) else [None]:
        function = one.get("function", one) if isinstance(one, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Fault(cell.name, f"expected {expected}, found {describe(found if one is None else one)}")
    return list(found)


def tools_of(cell: Cell) -> list[dict[str, Any]]:
    """Return tools as templates expect them, also where a function is given bare."""
    found = []
    for tool in _listed(_without_nulls(cell), "a list of functions, each with its name"):
        bare = {key: value for key, value in tool.items() if (key, value) != ("type", "function")}
        found.append(tool if "function" in tool else {"type": "function", "function": bare})
    return found


def calls_of(cell: Cell) -> list[dict[str, Any]]:
    """Return calls with their arguments as objects, which templates expect; OpenAI writes these as JSON texts."""
    expected, calls = 'a list of calls {"function": {"name": …, "arguments": {…}}}', list[dict[str, Any]]()
    for number, call in enumerate(_listed(cell, expected)):
        function, within = call.get("function", call), ".function" if "function" in call else ""
        place = f"{cell.name}[{number}]{within}.arguments"
        given = Cell(function.get("arguments"), place)
        arguments = _parsed(given if isinstance(cell.value, str) else _without_nulls(given))
        if not isinstance(arguments, dict):
            raise Fault(place, f"expected an object, found {describe(arguments)}")
        label = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append({**label, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return calls


def text_with_calls(message: dict[str, Any]) -> str:
    """Return all that a turn says: its reasoning, its text and its calls."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join(part for part in (message.get("reasoning_content"), message["content"], *calls) if part)
