"""The page docs/reference.md, every key of config/, from the schemas by which editors check these files."""

import json
import re
from collections.abc import Iterator
from typing import Any

KINDS = {
    "experiment": "An experiment",
    "scenario": "A scenario",
    "model": "A model",
    "technique": "A technique",
    "export": "An export",
    "hosted-technique": "A technique that a service trains",
    "kaito-technique": "A technique that KAITO trains",
}
OPENING = """# Every key

For anyone who writes a file in `config/`: every key, its values and its default. `make schemas` writes this page and
the schemas in `config/schemas/`, with which editors check and complete these files. [Configuration](configuration.md) explains what
the keys are for. In a key, `NAME` stands for a name that you choose and `[]` for each item of a list; a word in parentheses is the
`type` or `method` that has the key.
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}  # fmt: skip


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in which a reference is replaced by what it names."""
    if "$ref" not in schema:
        return schema
    return {**definitions[schema["$ref"].rpartition("/")[2]], **{key: schema[key] for key in schema if key != "$ref"}}


def members(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a schema, but for null."""
    schema = resolved(schema, definitions)
    found = schema.get("anyOf") or schema.get("oneOf")
    if not found:
        return [] if schema.get("type") == "null" else [schema]
    return [one for alternative in found for one in members(alternative, definitions)]


def words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return what a value may be, such as `number > 0`."""
    return " or ".join(dict.fromkeys(_words(one, definitions) for one in members(schema, definitions)))


def _words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "const" in schema:
        return f"`{shown(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{shown(one)}`" for one in schema["enum"])
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {words(schema.get('items', {}), definitions)}"
    if kind == "object":
        values = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
        below = words(values, definitions) if isinstance(values, dict) else "any value"
        return "keys" if "properties" in schema else f"NAME: {below}"
    bounds = "".join(f" {sign} {schema[key]}" for key, sign in BOUNDS.items() if key in schema)
    return {"string": "text", "boolean": "true or false"}.get(kind, kind) + bounds


def shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rows(schema: dict[str, Any], definitions: dict[str, Any], at: str = "", of: str = "") -> Iterator[tuple[str, ...]]:
    """Yield key, possible values, default and meaning of each key of an object, and of the objects below it."""
    for key, found in schema.get("properties", {}).items():
        name, one = f"{at}{key}", resolved(found, definitions)
        default = "" if key not in schema.get("required", []) else ", required"
        if "default" in one and one["default"] not in ({}, [], None, "") and len(shown(one["default"])) < 40:
            default = f"; default `{shown(one['default'])}`"
        kinds = members(found, definitions)
        described = one.get("description") or (kinds[0].get("description") if len(kinds) == 1 else "") or ""
        meaning = " ".join(["" if key == "description" else of, described]).strip()
        yield name, *(cell.replace("|", "\\|") for cell in (words(found, definitions) + default, meaning))
        for inner, below in nested(found, definitions, name):
            yield from rows(inner, definitions, f"{below}.", kind_of(inner) or of)


def kind_of(schema: dict[str, Any]) -> str:
    """Return the `type` or `method` whose keys these are, in brackets, or nothing."""
    kinds = [schema["properties"].get(key, {}).get("const") for key in ("type", "method")]
    return next((f"({kind})" for kind in kinds if kind), "")


def nested(schema: dict[str, Any], definitions: dict[str, Any], name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each kind of object that may stand at a key, and where its keys are."""
    for one in members(schema, definitions):
        if "properties" in one:
            yield one, name
        elif isinstance(values := one.get("additionalProperties"), dict):
            yield from nested(values, definitions, f"{name}.NAME")
        elif "items" in one:
            yield from nested(one["items"], definitions, f"{name}[]")


def table(found: list[tuple[str, ...]], prefix: str = "") -> str:
    """Return rows as a table of Markdown; names without the prefix."""
    lines = ["| key | value | meaning |", "|---|---|---|"]
    for name, value, meaning in found:
        lines.append(f"| `{name.removeprefix(prefix)}` | {value} | {meaning} |")
    return "\n".join(lines)


def section(schema: dict[str, Any]) -> str:
    """Return the tables of a kind of file: its own keys, then those below each of them."""
    definitions = schema.get("$defs", {})
    tops = members({key: schema[key] for key in schema if key != "$defs"}, definitions)
    found = list(dict.fromkeys(cells for top in tops for cells in rows(top, definitions, of=kind_of(top))))
    parts = [table([cells for cells in found if re.fullmatch(r"\w+", cells[0])])]
    for key in dict.fromkeys(cells[0].split(".")[0] for cells in found if "." in cells[0]):
        parts.append(f"### `{key}`\n\n{table([one for one in found if one[0].startswith(f'{key}.')], f'{key}.')}")
    return "\n\n".join(parts)


def page(schemas: dict[str, dict[str, Any]]) -> str:
    """Return the page, from the JSON Schema of each kind of file."""
    return (
        "\n\n".join([OPENING.strip(), *(f"## {title}\n\n{section(schemas[kind])}" for kind, title in KINDS.items())])
        + "\n"
    )
