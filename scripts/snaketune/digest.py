"""A digest of the code that can change a script's result, blind to comments and layout."""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Any


def _canonical(node: Any) -> Any:
    """A nested form of a syntax tree that is equal on every supported Python.

    Empty fields are dropped because their set differs between Python versions.
    """
    if isinstance(node, list):
        return [_canonical(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):
        # Python 3.12 adds empty constants to nested format specifications.
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    fields = (
        (name, value)
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("type_comment", "kind")
    )
    return [type(node).__name__, *([name, _canonical(value)] for name, value in fields)]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


def source_digest(source: str) -> str:
    """SHA-256 of a source text's syntax tree, comments, layout and docstrings left out."""
    return hashlib.sha256(repr(_canonical(_without_docstrings(ast.parse(source)))).encode()).hexdigest()


def _imported(tree: ast.AST, root: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    # Importing a.b.c runs a and a.b too.
    names |= {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
    candidates = (root / name.replace(".", "/") for name in names)
    return {path for stem in candidates for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()}


@cache
def code_digest(script: Path) -> str:
    """Digest of a script and of the modules beside it that it imports, transitively."""
    root, seen, waiting = script.parent, {}, [script]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            text = path.read_text(encoding="utf-8")
            seen[path] = source_digest(text)
            waiting += _imported(ast.parse(text), root)
    lines = sorted(f"{path.relative_to(root).as_posix()} {digest}" for path, digest in seen.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read once per process."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
