"""A file of `config/` as the typed model of its kind, or one message with every fault."""

import difflib
from typing import Any

from pydantic import BaseModel, RootModel, ValidationError

from snaketune.config.experiment import SCHEMAS
from snaketune.core.errors import UserError


def validated(kind: str, content: Any, where: str) -> Any:
    """``content`` as the typed model of its kind.

    Raises:
        UserError: every fault in one message, each with its key and what was expected.
    """
    model = SCHEMAS[kind]
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected keys and values, found {type(content).__name__}")
    try:
        checked = model.model_validate(content)
    except ValidationError as error:
        raise UserError("\n  ".join([f"{where}:", *(_fault(model, fault) for fault in error.errors())])) from None
    return checked.root if isinstance(checked, RootModel) else checked


def _fault(model: type[BaseModel], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _fields_at(model, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        return f"{key}: unknown key" + (
            f"; did you mean {near[0]}?" if near else f"; known keys are {', '.join(sorted(known))}" if known else ""
        )
    if fault["type"] == "missing":
        return f"{key}: missing"
    found = "" if isinstance(fault["input"], dict) else f" (found {fault['input']!r})"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')}{found}".removeprefix(": ")


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    schema = model.model_json_schema()
    found = schema
    for part in location:
        options = [found, *found.get("anyOf", []), *found.get("oneOf", [])]
        options = [schema["$defs"][o["$ref"].rsplit("/", 1)[-1]] if "$ref" in o else o for o in options]
        options += [
            schema["$defs"][inner["$ref"].rsplit("/", 1)[-1]]
            for o in options
            for inner in o.get("oneOf", [])
            if "$ref" in inner
        ]
        found = next(
            (o["properties"][part] for o in options if part in o.get("properties", {})),
            next((o for o in options if o.get("properties", {}).get("type", {}).get("const") == part), found),
        )
    if "$ref" in found:
        found = schema["$defs"][found["$ref"].rsplit("/", 1)[-1]]
    return list(found.get("properties", {}))
