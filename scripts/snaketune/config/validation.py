"""Turn the content of a file into its typed model, or every fault of it into one message."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, RootModel, ValidationError

from snaketune.config.base import EXPECTED
from snaketune.core.errors import UserError


def validated(model: type[BaseModel], content: Any, where: str, context: Any = None) -> Any:
    """Return ``content`` as an instance of ``model``; of a RootModel, what is in it.

    Args:
        where: the file, or what else the message opens with.
        context: what the model's validators know besides.

    Raises:
        UserError: every fault in one message, each with its key and what was expected.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected keys and values, found {type(content).__name__}")
    try:
        checked = model.model_validate(content, context=context)
    except ValidationError as error:
        raise UserError("\n  ".join([f"{where}:", *(_fault(model, fault) for fault in error.errors())])) from None
    return checked.root if isinstance(checked, RootModel) else checked


def _fault(model: type[BaseModel], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        return f"{key}: unknown key" + (
            f"; did you mean {near[0]}?" if near else f"; known keys are {', '.join(known)}" if known else ""
        )
    if fault["type"] == "missing":
        return f"{key}: missing"
    found = "" if isinstance(fault["input"], dict) else f" (found {fault['input']!r})"
    message = EXPECTED.get(fault.get("ctx", {}).get("pattern"), fault["msg"].removeprefix("Value error, "))
    if fault["type"] in ("dict_type", "model_type"):
        message = "expected keys and values"
    return f"{key}: {message}{found}{_advice(key, fault['type'], fault['input'])}".removeprefix(": ")


def _advice(key: str, kind: str, found: Any) -> str:
    """Return what to write instead, where YAML or the habits of other programs explain what was found."""
    if kind == "list_type" and isinstance(found, str | int):
        return f"; write [{found}]"
    if kind == "string_type" and isinstance(found, bool):
        return "; write it in quotes: YAML reads no, off, yes and on as false and true"
    if kind == "string_type" and isinstance(found, int | float):
        return "; write it in quotes, or YAML reads a number"
    if kind == "string_pattern_mismatch" and key.startswith("models.") and "/" in found:
        return f"; `make pin MODEL={found}` writes the file for a model on the Hugging Face Hub"
    return ""


def path_advice(path: str) -> str:
    """Return what to write instead of a path that a shell or a browser would understand."""
    if path.startswith("~") or "$" in path:
        return "; ~ and variables aren't expanded: write the full path"
    if "://" in path:
        return "; download it, and give the file's path"
    return "; patterns aren't expanded: list the files, each as {path: …}" if "*" in path else ""


def _keys_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys that may stand at a location; a part of it is a key, or the tag of a union's member."""
    models = list(_models_in(model))
    for part in location:
        fields = [one.model_fields[part].annotation for one in models if part in one.model_fields]
        below = [inner for annotation in fields for inner in _models_in(annotation)]
        tagged = [one for one in models if any(part in get_args(f.annotation) for f in one.model_fields.values())]
        models = below if fields else tagged or models
    return sorted({key for one in models for key in one.model_fields})


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model in a type such as `dict[str, A | B] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _models_in(annotation.model_fields["root"].annotation)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _models_in(inner)
