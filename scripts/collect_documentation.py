"""Collect the docstrings of the installed libraries and Python's language reference.

Write one JSONL row per distinct text: library, module, name, kind, group (whose rows stay in
one split), split and text.
"""

import ast
import importlib.metadata
import inspect
import platform
import pydoc_data.topics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

from snaketune.core import cli, errors, files, manifest
from snaketune.data.examples import split_of

MINIMUM_CHARACTERS = 40
HELD_OUT = {"test": 0.12, "validation": 0.06}


class CorpusParams(TypedDict):
    libraries: dict[str, str]
    """Package of each distribution."""
    exclude: list[str]
    """Parts of module names."""


Row = dict[str, str]


def entry(library: str, module: str, names: list[str], kind: str, text: str) -> Row:
    """Return one row; all texts of one class, or one topic, share a group and so a split."""
    group = ".".join([module, *names[:1]])
    place = {"library": library, "module": module, "name": ".".join(names), "kind": kind}
    return {**place, "group": group, "split": split_of(group, **HELD_OUT), "text": text}


def docstrings(source: tuple[str, str, Path]) -> list[Row]:
    """Return the docstrings of one Python file, except those of functions inside functions."""
    library, module, path = source
    rows: list[Row] = []

    def visit(node: Any, names: list[str], kind: str) -> None:
        text = ast.get_docstring(node)
        if text and len(text) >= MINIMUM_CHARACTERS:
            rows.append(entry(library, module, names, kind, text))
        if kind in ("function", "method"):
            return
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                visit(child, [*names, child.name], "class")
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                visit(child, [*names, child.name], "method" if kind == "class" else "function")

    visit(ast.parse(path.read_bytes()), [], "module")
    return rows


def sources(libraries: dict[str, str], exclude: list[str]) -> Iterator[tuple[str, str, Path]]:
    """Yield (library, module, file) for every Python file of the installed distributions."""
    for distribution, package in sorted(libraries.items()):
        try:
            installed = importlib.metadata.distribution(distribution).files or []
        except importlib.metadata.PackageNotFoundError:
            raise errors.UserError(f"library {distribution} isn't installed: run `make setup`") from None
        for file in sorted(installed, key=str):
            module = file.as_posix().removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            if file.suffix == ".py" and file.parts[0] == package and not any(part in f".{module}." for part in exclude):
                yield distribution, module, Path(str(file.locate()))


def language_reference() -> Iterator[Row]:
    """Yield the topics of Python's language reference, one row per paragraph."""
    for topic, text in sorted(pydoc_data.topics.topics.items()):
        for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
            if len(paragraph) >= MINIMUM_CHARACTERS:
                yield entry("python", "python", [topic, str(number)], "reference", paragraph)


def main() -> None:
    parser = cli.job_parser(__doc__, CorpusParams, "--output")
    parser.add_argument("--threads", type=int, default=1, help="number of processes that parse")
    arguments = parser.parse_args()
    recipe: CorpusParams = arguments.recipe

    found = list(sources(recipe["libraries"], recipe["exclude"]))
    print(f"reading {len(found)} files of {len(recipe['libraries'])} libraries", flush=True)
    with ProcessPoolExecutor(arguments.threads) as pool:
        rows = [row for part in pool.map(docstrings, found, chunksize=64) for row in part]
    rows += language_reference()
    distinct = {" ".join(row["text"].lower().split()): row for row in reversed(rows)}
    kept = sorted(distinct.values(), key=lambda row: (row["library"], row["module"], row["name"], row["text"]))
    files.write_jsonl(arguments.output, kept)
    # The language reference belongs to the interpreter, which no lock file pins.
    manifest.record(arguments.output.parent, {**recipe, "python": platform.python_version()}, [], [arguments.output])
    print(
        f"kept {len(kept)} distinct texts of {len(rows)}, {sum(len(row['text']) for row in kept) / 1e6:.1f} million characters"
    )


if __name__ == "__main__":
    errors.run(main)
