"""Parse JSON, refusing what Python's parser accepts: duplicate keys, NaN, lone surrogates; values that JSON can't write."""

import collections
import json
import math
import re
from typing import Any

from snaketune.data.raw_rows import describe

# The value of a key that one object has more than once.
TWICE = object()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = collections.Counter(name for name, _ in pairs)
        content |= {name: TWICE for name, count in names.items() if count > 1}
    return content


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


def _flaw(row: dict[str, Any]) -> str | None:
    """Return the field and the flaw of a value that Python's parser or Parquet gives though it is no JSON, or no text."""
    # Grows while it is read, so that no depth is too deep.
    found: list[tuple[str, Any]] = [("", row)]
    for name, value in found:
        if value is TWICE:
            return f"{name}: the key is there twice in one object"
        if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
            return f"{name}: half of a surrogate pair (an escape like \\ud83d alone); write the whole character"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name}: {value} is no JSON; write null or a number"
        elif isinstance(value, dict):
            found += [("a key", key) for key in value]
            found += [(f"{name}.{key}" if name else key, one) for key, one in value.items()]
        elif isinstance(value, list):
            found += [(f"{name}[{number}]", one) for number, one in enumerate(value)]
        elif value is not None and not isinstance(value, str | int | float):
            return f"{name}: {describe(value)} is no JSON; write it as a text"
    return None


def checked(value: Any) -> dict[str, Any]:
    """Return a parsed value if it is an object without flaws.

    Raises:
        ValueError: (fault).
    """
    if not isinstance(value, dict):
        raise ValueError(f'expected an object like {{"text": …}}, found {describe(value)}')
    if flaw := _flaw(value):
        raise ValueError(flaw)
    return value
