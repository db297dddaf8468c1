"""A digest of the code that can change a script's result.

It is a Merkle tree: an import contributes the digest of the imported module and never its path, so that
moving or renaming a module changes no digest, while an edit changes the digests of exactly the scripts that
import what was edited. Comments, layout, docstrings and the literal text of messages are left out; an
expression inside a message stays, because it can fail or have an effect.
"""

import ast
import hashlib
import os
import sys
from collections import Counter
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.syntax import IMPORTS, canonical, names_bound_by, one_by_one, without_text

PACKAGE = __name__.partition(".")[0]
# A module that reads one of these can behave differently after a move, so its path counts.
PLACE = {"__file__", "__name__", "__package__", "__path__", "__spec__"}
# Calls whose arguments are only shown, and how many of the first are text (None: all).
SHOWN = {"own.UserError": None, "own.Fault": None, "print": None, "warnings.warn": 1, "own.job_parser": 2}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


@cache
class _Modules:
    """The digests of the modules below ``root``, all read at once, and each parsed once."""

    def __init__(self, root: Path):
        self.root = root
        found = (Path(directory, name) for directory, _, names in os.walk(root, followlinks=True) for name in names)
        self.sources = {path: path.read_bytes() for path in sorted(found) if path.suffix == ".py" and path.is_file()}
        self.bodies: dict[Path, str] = {}
        self.imported_modules: dict[Path, set[str]] = {}

    def find(self, name: str) -> Path | None:
        """The file of a module by its dotted name, where it is one of this repository."""
        if not all(part.isidentifier() for part in name.split(".")):
            return None
        stem = self.root.joinpath(*name.split("."))
        return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path in self.sources), None)

    def digest(self, path: Path) -> str:
        """A module together with the code of the packages above it, which runs first."""
        packages = (parent / "__init__.py" for parent in path.parents if self.root in parent.parents)
        ran = {self._body(package) for package in packages if package != path and package in self.sources}
        empty = _hash(canonical(ast.parse("")))
        return _hash([self._body(path), *sorted(ran - {empty})])

    def _body(self, path: Path) -> str:
        if path not in self.bodies:
            self.bodies[path] = ""  # while its imports are followed
            try:
                reduced = _Reduced(ast.parse(self.sources[path].decode()), path, self)
            except BaseException:
                del self.bodies[path]
                raise
            self.bodies[path], self.imported_modules[path] = _hash(reduced.content), set(reduced.own)
        elif not self.bodies[path]:
            importing = [one for one, body in self.bodies.items() if not body]
            circle = [str(one.relative_to(self.root)) for one in (*importing[importing.index(path) :], path)]
            raise UserError(f"circular import: {' imports '.join(circle)}; move what both need to a module of its own")
        return self.bodies[path]


class _Reduced(ast.NodeTransformer):
    """A module's syntax tree with nothing in it but what can change a result."""

    def __init__(self, tree: ast.Module, path: Path, modules: _Modules):
        self.path, self.modules = path, modules
        self.bound = Counter(name for node in ast.walk(tree) for name in names_bound_by(node))
        self.meanings: dict[str, str] = {}
        self.own: dict[str, Path] = {}
        for name, one in one_by_one(tree.body):
            if not isinstance(one, IMPORTS) or self.bound[name] > 1:
                continue  # a name that is bound again may stand for something else
            module, member = self._imported(one)
            self.meanings[name] = f"own.{member}" if module else member
            if module and not member:
                self.own[name] = module
        digests = {name: f"module {modules.digest(module)}" for name, module in self.own.items()}
        # Two modules of equal code can hold different state: their names stay.
        count = Counter(digests.values())
        self.renamed = {name: digest for name, digest in digests.items() if count[digest] == 1}

        tree = self.visit(tree)
        nodes = list(ast.walk(tree))
        if not any("__doc__" in (getattr(node, "id", ""), getattr(node, "attr", "")) for node in nodes):
            for node in nodes:
                if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:]
        self.content = canonical(tree)
        if any(isinstance(node, ast.Name) and node.id in PLACE for node in nodes):
            self.content = [self.content, path.relative_to(modules.root).as_posix()]

    def _imported(self, node: ast.stmt) -> tuple[Path | None, str]:
        """The module that an import of one name runs, if it is of this repository, and what is taken if not itself."""
        if not isinstance(node, IMPORTS):
            return None, ""
        name, parent, where = node.names[0].name, getattr(node, "module", None), f"{self.path}, line {node.lineno}"
        if getattr(node, "level", 0) or name == "*":
            raise UserError(f"{where}: a relative or star import hides what is imported; name it in full")
        full = f"{parent}.{name}" if parent else name
        if module := self.modules.find(full):
            if not parent and "." in name and not node.names[0].asname:
                raise UserError(f"{where}: `import {name}` binds only its first part; write `from … import …`")
            return module, ""
        if parent and (module := self.modules.find(parent)):
            return module, name
        if full.partition(".")[0] == PACKAGE:
            raise UserError(f"{where}: {full} isn't below {self.modules.root}")
        return None, full

    def _meaning(self, node: ast.expr) -> str:
        """The full name that an expression refers to, as far as this module's imports tell."""
        if isinstance(node, ast.Name):
            return self.meanings.get(node.id, "" if self.bound[node.id] else node.id)
        return f"{self._meaning(node.value).rstrip('.')}.{node.attr}" if isinstance(node, ast.Attribute) else ""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and any(isinstance(one, IMPORTS) for one in value):
                setattr(node, field, self._grouped(value))
        return super().generic_visit(node)

    def _grouped(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Statements with each run of imports of this repository in an order that no move changes."""
        result: list[ast.stmt] = []
        for own, run in groupby(one_by_one(statements), key=lambda pair: bool(self._imported(pair[1])[0])):
            if not own:
                result += [one for _, one in run]
                continue
            entries = [(name, self._entry(name, one)) for name, one in run]
            if len(dict(entries)) == len(entries):
                entries.sort(key=lambda entry: entry[1])
            result.append(ast.Import([ast.alias(entry) for _, entry in entries]))
        return result

    def _entry(self, name: str, node: ast.stmt) -> str:
        """An import of one name, by the digest of what it runs."""
        module, member = self._imported(node)
        assert module
        entry = self.renamed.get(name, f"{name} = {member} of {self.modules.digest(module)}")
        self._refuse_imported_module(module, member, node.lineno)
        return entry

    def _refuse_imported_module(self, path: Path, name: str, line: int) -> None:
        """Raise a UserError if a module is taken from one that imports it: names of imported modules don't count there."""
        if name in self.modules.imported_modules[path]:
            raise UserError(f"{self.path}, line {line}: {path.name} only imports {name}; import the module itself")

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.own:
            self._refuse_imported_module(self.own[node.value.id], node.attr, node.lineno)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.renamed.get(node.id, node.id)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if ast.unparse(node) == "__name__ == '__main__'":
            return ast.Name("is the script", ast.Load())
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        """A module may be imported by a text that names it: then text and digest count."""
        if isinstance(node.value, str) and "." in node.value and (path := self.modules.find(node.value)):
            return ast.Constant((node.value, self.modules.digest(path)))  # type: ignore[arg-type]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = self._meaning(node.func)
        files = [self._meaning(one.value) for one in node.keywords if one.arg in ("file", None)]
        if called in SHOWN and (called != "print" or files in ([], ["sys.stderr"])):
            words = slice(SHOWN[called])
            node.args[words] = map(without_text, node.args[words])
        helps = called == "argparse.ArgumentParser" or called.endswith(".add_argument")
        for keyword in node.keywords:
            if called == "own.job_parser" or (helps and keyword.arg in ("help", "description")):
                keyword.value = without_text(keyword.value)
        return self.generic_visit(node)


def code_digest(script: Path, root: Path | None = None) -> str:
    """Digest of a script and of the modules below ``root`` that it imports, transitively.

    Modules are looked for in the script's directory unless ``root`` is given. Files are read once per process, all at once.

    Raises:
        UserError: an import can't be followed, or modules import each other in a circle.
    """
    return _Modules(root or script.parent).digest(script)


def code_state(root: Path) -> str:
    """SHA-256 of all that the digests of scripts below ``root`` follow from: its modules, and how this Python parses."""
    sources = _Modules(root).sources
    return _hash([sys.version, *((path.relative_to(root).as_posix(), source) for path, source in sources.items())])
