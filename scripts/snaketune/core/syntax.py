"""Syntax trees of Python modules, reduced to what their digest is taken of."""

import ast
from collections.abc import Iterator
from copy import copy
from typing import Any

IMPORTS = (ast.Import, ast.ImportFrom)
NOTES = ("type_comment", "kind")


def canonical(node: Any) -> Any:
    """A nested form of a syntax tree that is equal on every supported Python.

    Empty fields are left out because their set differs between Python versions.
    """
    if isinstance(node, list):
        return [canonical(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):
        # Python 3.12 adds empty constants to nested format specifications.
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name not in NOTES]
    return [type(node).__name__, *([name, canonical(value)] for name, value in fields)]


def names_bound_by(node: ast.AST) -> list[str]:
    """The names that a node may bind, rather one too many than one too few."""
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    read = isinstance(getattr(node, "ctx", None), ast.Load)
    if read or isinstance(node, (ast.Attribute, ast.Constant, ast.ImportFrom, ast.keyword)):
        return []
    values = (value if isinstance(value, list) else [value] for _, value in ast.iter_fields(node))
    return [name for value in values for name in value if isinstance(name, str)]


def without_text(node: ast.expr) -> ast.expr:
    """A message without its literal text; its expressions and how they are joined stay."""
    match node:
        case ast.Constant(value=str()) | ast.Name(id="__doc__"):
            return ast.Constant("")
        case ast.JoinedStr():
            parts = [part for part in node.values if isinstance(part, ast.FormattedValue)]
            return ast.JoinedStr(
                [ast.FormattedValue(without_text(part.value), part.conversion, part.format_spec) for part in parts]
            )
        case ast.BinOp(op=ast.Add()):
            return ast.BinOp(without_text(node.left), node.op, without_text(node.right))
        case ast.BoolOp():
            return ast.BoolOp(node.op, list(map(without_text, node.values)))
        case ast.IfExp():
            return ast.IfExp(node.test, without_text(node.body), without_text(node.orelse))
    return node


def one_by_one(statements: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Statements, with an import of several names as several imports, and the name that each import binds."""
    for one in statements:
        for alias in one.names if isinstance(one, IMPORTS) else []:
            single: Any = copy(one)
            single.names = [alias]
            yield names_bound_by(alias)[0], single
        if not isinstance(one, IMPORTS):
            yield "", one
