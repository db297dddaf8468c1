"""Docstrings are found with their names, and split the same way on every machine."""

import collections
from pathlib import Path

import pytest

from collect_documentation import HELD_OUT, docstrings, sources
from snaketune.core.errors import UserError
from snaketune.data.examples import split_of

SOURCE = '''"""A module, described in more than forty characters."""

def function():
    """A function, described in more than forty characters."""

    def inner():
        """An inner function, described in more than forty characters."""

async def coroutine():
    """A coroutine, described in more than forty characters."""

def terse():
    """Too short."""

class Thing:
    """A class, described in more than forty characters."""

    def method(self):
        """A method, described in more than forty characters."""

    class Part:
        def method(self):
            """A part's method, described in more than forty characters."""
'''


@pytest.mark.parametrize(
    ("group", "split"),
    [
        ("numpy.linalg.norm", "train"), ("torch.nn.Linear", "train"), ("", "train"), ("numpy.outer", "test"),
        ("numpy.multi_dot", "test"), ("numpy.vecdot", "test"), ("numpy.__name__", "validation"),
    ],
)  # fmt: skip
def test_a_group_keeps_its_split(group: str, split: str) -> None:
    assert split_of(group, **HELD_OUT) == split


def test_splits_have_about_their_shares_of_many_groups() -> None:
    count = collections.Counter(split_of(f"package.module{n}", **HELD_OUT) for n in range(10000))
    assert {split: count[split] / 10000 for split in HELD_OUT} == pytest.approx(HELD_OUT, abs=0.01)


def test_docstrings_are_found_with_name_kind_and_group(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    rows = docstrings(("library", "package.module", path))
    assert [(row["kind"], row["name"], row["group"]) for row in rows] == [
        ("module", "", "package.module"),
        ("function", "function", "package.module.function"),
        ("function", "coroutine", "package.module.coroutine"),
        ("class", "Thing", "package.module.Thing"),
        ("method", "Thing.method", "package.module.Thing"),
        ("method", "Thing.Part.method", "package.module.Thing"),
    ]
    assert all(row["split"] == split_of(row["group"], **HELD_OUT) for row in rows)
    assert rows[0]["text"] == "A module, described in more than forty characters."


def test_a_file_with_its_own_encoding_is_read(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_bytes('# coding: latin-1\n"""Ärger, beschrieben in mehr als vierzig Zeichen."""\n'.encode("latin-1"))
    assert docstrings(("library", "module", path))[0]["text"].startswith("Ärger")


def test_the_files_of_an_installed_library_are_found_without_the_excluded() -> None:
    found = {module: path for _, module, path in sources({"pydantic": "pydantic"}, [".v1.", ".deprecated."])}
    assert {"pydantic", "pydantic.main"} <= set(found)
    assert not [module for module in found if ".v1" in module or ".deprecated" in module]
    assert found["pydantic.main"].is_file()


def test_a_library_that_is_not_installed_is_named() -> None:
    with pytest.raises(UserError, match="library not-a-library isn't installed"):
        list(sources({"not-a-library": "nothing"}, []))
