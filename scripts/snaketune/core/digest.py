"""A digest of the code that can change a script's result.

It is a Merkle tree: an import contributes the digest of the imported module and never its path, so that
moving or renaming a module changes no digest, while an edit changes the digests of exactly the scripts that
import what was edited. Comments, layout, docstrings and the literal text of messages are left out; an
expression inside a message stays, because it can fail or have an effect.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError

PACKAGE = __name__.partition(".")[0]
# A module that reads one of these can behave differently after a move, so its path counts.
PLACE = {"__file__", "__name__", "__package__", "__path__", "__spec__"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


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


def _hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


EMPTY = _hash(_canonical(ast.parse("")))


def _bound(node: ast.AST) -> list[str]:
    """The names that a node may bind, rather one too many than one too few."""
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, (ast.Attribute, ast.Constant, ast.ImportFrom, ast.keyword)):
        return []
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return []
    values = (value if isinstance(value, list) else [value] for _, value in ast.iter_fields(node))
    return [name for value in values for name in value if isinstance(name, str)]


def _without_text(node: ast.expr) -> ast.expr:
    """A message without its literal text; its expressions and how they are joined stay."""
    match node:
        case ast.Constant(value=str()) | ast.Name(id="__doc__"):
            return ast.Constant("")
        case ast.JoinedStr():
            return ast.JoinedStr([part for part in node.values if isinstance(part, ast.FormattedValue)])
        case ast.BinOp(op=ast.Add()):
            return ast.BinOp(_without_text(node.left), node.op, _without_text(node.right))
        case ast.IfExp():
            return ast.IfExp(node.test, _without_text(node.body), _without_text(node.orelse))
    return node


def _one_by_one(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements, with an import of several names as several imports."""
    for one in statements:
        if isinstance(one, ast.Import):
            yield from (ast.copy_location(ast.Import([alias]), one) for alias in one.names)
        elif isinstance(one, ast.ImportFrom):
            yield from (ast.copy_location(ast.ImportFrom(one.module, [alias], one.level), one) for alias in one.names)
        else:
            yield one


def _name(node: Any) -> str:
    """The name that an import of one name binds."""
    return _bound(node.names[0])[0]


def _full_name(node: ast.Import | ast.ImportFrom) -> str:
    """Return what a name imported from elsewhere stands for."""
    alias = node.names[0]
    if isinstance(node, ast.ImportFrom):
        return f"{node.module}.{alias.name}"
    return alias.name if alias.asname else alias.name.partition(".")[0]


class _Modules:
    """The digests of the modules below ``root``, each parsed once."""

    def __init__(self, root: Path):
        self.root = root
        self.bodies: dict[Path, str] = {}
        self.imported_modules: dict[Path, set[str]] = {}
        self.importing: list[Path] = []

    def find(self, name: str) -> Path | None:
        """The file of a module by its dotted name, where it is one of this repository."""
        if not all(part.isidentifier() for part in name.split(".")):
            return None
        stem = self.root.joinpath(*name.split("."))
        return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)

    def digest(self, path: Path) -> str:
        """A module together with the code of the packages above it, which runs first."""
        packages = (parent / "__init__.py" for parent in path.parents if self.root in parent.parents)
        ran = {self._body(package) for package in packages if package != path and package.is_file()}
        return _hash([self._body(path), *sorted(ran - {EMPTY})])

    def _body(self, path: Path) -> str:
        if path in self.importing:
            circle = [*self.importing[self.importing.index(path) :], path]
            names = " imports ".join(str(one.relative_to(self.root)) for one in circle)
            raise UserError(f"circular import: {names}; move what both need to a module of its own")
        if path not in self.bodies:
            self.importing.append(path)
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
                reduced = _Reduced(tree, path, self)
                self.bodies[path], self.imported_modules[path] = _hash(reduced.content), set(reduced.own)
            finally:
                self.importing.pop()
        return self.bodies[path]


class _Reduced(ast.NodeTransformer):
    """A module's syntax tree with nothing in it but what can change a result."""

    def __init__(self, tree: ast.Module, path: Path, modules: _Modules):
        self.path, self.modules = path, modules
        self.bound = Counter(name for node in ast.walk(tree) for name in _bound(node))
        self.meanings: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        self.own: dict[str, Path] = {}
        for one in _one_by_one(tree.body):
            if not isinstance(one, (ast.Import, ast.ImportFrom)) or self.bound[_name(one)] > 1:
                continue  # a name that is bound again may stand for something else
            found = self._imported(one)
            self.meanings[_name(one)] = f"own.{found[1]}" if found else _full_name(one)
            if found and not found[1]:
                self.renamed[_name(one)] = f"module {modules.digest(found[0])}"
                self.own[_name(one)] = found[0]
        # Two modules of equal code can hold different state: their names stay.
        count = Counter(self.renamed.values())
        self.renamed = {name: module for name, module in self.renamed.items() if count[module] == 1}

        tree = self.visit(tree)
        nodes = list(ast.walk(tree))
        if not any("__doc__" in (getattr(node, "id", ""), getattr(node, "attr", "")) for node in nodes):
            for node in nodes:
                if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:]
        self.content = _canonical(tree)
        if any(isinstance(node, ast.Name) and node.id in PLACE for node in nodes):
            self.content = [self.content, path.relative_to(modules.root).as_posix()]

    def _imported(self, node: ast.stmt) -> tuple[Path, str] | None:
        """The module of this repository that an import of one name runs, and the attribute taken from it if any."""
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            return None
        name, find, where = node.names[0].name, self.modules.find, f"{self.path}, line {node.lineno}"
        if isinstance(node, ast.Import):
            found = (path, "") if (path := find(name)) else None
            if found and "." in name and not node.names[0].asname:
                raise UserError(f"{where}: `import {name}` binds only its first part; write `from … import …`")
        elif node.level or name == "*":
            raise UserError(f"{where}: a relative or star import hides what is imported; name it in full")
        else:
            name = f"{node.module}.{name}"
            found = (path, "") if (path := find(name)) else None
            if not found and (path := find(str(node.module))):
                found = (path, node.names[0].name)
        if not found and name.partition(".")[0] == PACKAGE:
            raise UserError(f"{where}: {name} isn't below {self.modules.root}")
        return found

    def _meaning(self, node: ast.expr) -> str:
        """The full name that an expression refers to, as far as this module's imports tell."""
        if isinstance(node, ast.Name):
            return self.meanings.get(node.id, "" if self.bound[node.id] else node.id)
        return f"{self._meaning(node.value).rstrip('.')}.{node.attr}" if isinstance(node, ast.Attribute) else ""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and any(isinstance(one, (ast.Import, ast.ImportFrom)) for one in value):
                setattr(node, field, self._grouped(value))
        return super().generic_visit(node)

    def _grouped(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Statements with each run of imports of this repository in an order that no move changes."""
        result: list[ast.stmt] = []
        for own, run in groupby(_one_by_one(statements), key=lambda one: self._imported(one) is not None):
            if own:
                entries = [(_name(one), self._entry(one)) for one in run]
                if len(dict(entries)) == len(entries):
                    entries.sort(key=lambda entry: entry[1])
                result.append(ast.Import([ast.alias(entry) for _, entry in entries]))
            else:
                result += run
        return result

    def _entry(self, node: ast.stmt) -> str:
        """An import of one name, by the digest of what it runs."""
        found = self._imported(node)
        assert found
        entry = self.renamed.get(_name(node), f"{_name(node)} = {found[1]} of {self.modules.digest(found[0])}")
        self._refuse_imported_module(found[0], found[1], node.lineno)
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
        """Leave out what is only shown: errors, warnings, what is printed to a job's log, and --help."""
        called = self._meaning(node.func)
        files = [self._meaning(one.value) for one in node.keywords if one.arg in ("file", None)]
        if called == "own.UserError" or (called == "print" and files in ([], ["sys.stderr"])):
            node.args = [_without_text(one) for one in node.args]
        elif called == "warnings.warn":
            node.args[:1] = [_without_text(one) for one in node.args[:1]]
        elif called == "argparse.ArgumentParser" or called.endswith(".add_argument"):
            for keyword in node.keywords:
                if keyword.arg in ("help", "description"):
                    keyword.value = _without_text(keyword.value)
        elif called == "own.job_parser":
            node.args[:2] = [_without_text(one) for one in node.args[:2]]
            for keyword in node.keywords:
                keyword.value = _without_text(keyword.value)
        return self.generic_visit(node)


_modules = cache(_Modules)


def code_digest(script: Path, root: Path | None = None) -> str:
    """Digest of a script and of the modules below ``root`` that it imports, transitively.

    Modules are looked for in the script's directory unless ``root`` is given. Files are read once per process.

    Raises:
        UserError: an import can't be followed, or modules import each other in a circle.
    """
    return _modules(root or script.parent).digest(script)
