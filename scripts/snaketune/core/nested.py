"""Nested mappings, such as a job's parameters, and how two of them differ."""

from typing import Any


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one level, with its keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Return each key that differs between two nested mappings, with both values; None stands for a missing one."""
    a, b = flat(one), flat(other)
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}
