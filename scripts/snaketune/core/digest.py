"""A digest of the code that can change a script's result, blind to comments and layout."""

import ast
import hashlib
import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from snaketune.core.files import sha256, write_json


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
    return _tree_digest(ast.parse(source))


def _tree_digest(tree: ast.Module) -> str:
    return hashlib.sha256(repr(_canonical(_without_docstrings(tree))).encode()).hexdigest()


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
def _module(path: Path, root: Path) -> tuple[str, set[Path]]:
    """Digest of one file, and the files below ``root`` that it imports; parsed once per process."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = _imported(tree, root)
    return _tree_digest(tree), imported


@cache
def code_digest(script: Path, root: Path | None = None) -> str:
    """Digest of a script and of the modules below ``root`` that it imports, transitively.

    Without ``root`` they are beside the script. A module of a package runs the package too.
    """
    root = root or script.parent
    packages = (parent / "__init__.py" for parent in script.parents if root in parent.parents)
    seen: dict[Path, str] = {}
    waiting = [script, *(path for path in packages if path.is_file())]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen[path], imported = _module(path, root)
            waiting += imported
    lines = sorted(f"{path.relative_to(root).as_posix()} {digest}" for path, digest in seen.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read once per process."""
    return sha256(path)


class FileDigests:
    """SHA-256 of files that may be large, kept in a file and taken from it while a file is untouched.

    Untouched means equal size, inode, and times of modification and of change: the last can't be
    set, so `cp -p` and `touch -d` are seen too. A file changed within the last two seconds
    isn't remembered, because a further write could leave its times equal.
    """

    def __init__(self, memory: Path):
        self.memory = memory
        try:
            self.known: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}

    def of(self, path: Path) -> str:
        found = path.stat()
        state = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        known = self.known.get(str(path))
        if known and known["state"] == state:
            return str(known["sha256"])
        digest = sha256(path)
        if max(found.st_mtime, found.st_ctime) < time.time() - 2:
            self.known[str(path)] = {"state": state, "sha256": digest}
            # Two calls of Snakemake may write it at once.
            aside = self.memory.with_name(f".{self.memory.name}.{os.getpid()}")
            write_json(aside, self.known)
            aside.replace(self.memory)
        return digest
