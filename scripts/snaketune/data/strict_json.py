"""Parse JSON, refusing what Python's parser accepts: duplicate keys, NaN, NUL, lone surrogates."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from snaketune.data.raw_rows import Faults, describe


class _Repeated(dict[str, Any]):
    """An object with a duplicate key."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    names = [name for name, _ in pairs]
    repeated = _Repeated(content)
    repeated.key = next(name for name in names if names.count(name) > 1)
    return repeated


def parsed(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: (line in ``text``, fault).
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        found = repr(text[error.pos : error.pos + 20].split("\n")[0]) if text[error.pos :].strip() else "the end"
        raise ValueError(error.lineno, f"not JSON: {error.msg} at column {error.colno}, found {found}") from None
    except RecursionError:
        raise ValueError(1, "not JSON: nested too deep") from None
    except ValueError as error:
        raise ValueError(1, f"not JSON: {str(error)[:80]}") from None


def _flaw(value: Any, name: str = "") -> str | None:
    """Return the field and the flaw of a value that Python's parser accepts though it is no JSON, or no text."""
    if isinstance(value, str):
        if "\0" in value:
            return f"{name}: a NUL character"
        if not value.isascii() and re.search("[\ud800-\udfff]", value):
            return f"{name}: half of a surrogate pair (an escape like \\ud83d alone); write the whole character"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{name}: {value} is no JSON; write null or a number"
    elif isinstance(value, _Repeated):
        return f"{name + '.' if name else ''}{value.key}: the key is there twice in one object"
    elif isinstance(value, dict):
        nested: Iterable[tuple[str, Any]] = ((f"{name}.{key}" if name else key, one) for key, one in value.items())
        return next((flaw for key, one in nested if (flaw := _flaw(key, "a key") or _flaw(one, key))), None)
    elif isinstance(value, list):
        return next((flaw for i, one in enumerate(value) if (flaw := _flaw(one, f"{name}[{i}]"))), None)
    return None


def checked(value: Any, where: str, faults: Faults) -> dict[str, Any] | None:
    """Return the value if it is an object without flaws; else add its fault and return None."""
    if not isinstance(value, dict):
        faults.add(where, f'expected an object like {{"text": …}}, found {describe(value)}')
        return None
    try:
        flaw = _flaw(value)
    except RecursionError:
        flaw = "nested too deep"
    if flaw:
        faults.add(where, flaw)
        return None
    return value
