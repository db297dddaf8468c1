"""The digest of code changes with what code does, and with nothing else."""

import ast
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.core.digest import code_digest, source_digest

SCRIPTS = Path(__file__).parents[3] / "scripts"

SOURCE = """
import os
from json import loads as read

class Model(Base, metaclass=Meta):
    size: int = 3

    def total(self, first, /, second=2, *rest, flag=None, **options) -> "int":
        return [item * second for item in rest if item is not None] or {**options, None: first}

async def wait():
    async with lock as held:
        yield f"{held!r} costs {{2}} {price:.2f}" u"z", b"x"
    match held:
        case {"a": [1, *_]} | None if first:
            return
"""

NESTED_FORMAT = 'text = f"{value:>{width}}"\n'

Digest = Callable[[dict[str, str]], str]


@pytest.fixture
def digest(tmp_path: Path) -> Digest:
    """The digest of main.py among some files; each call in a directory of its own."""
    number = itertools.count()

    def of(files: dict[str, str]) -> str:
        root = tmp_path / str(next(number))
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return code_digest(root / "main.py")

    return of


@pytest.mark.parametrize(
    "same",
    [
        "def f(a):\n    return a + 1\n",
        "# why\ndef f(a):  # what\n    return a + 1\n",
        '"""Module."""\n\ndef f(a):\n    """Function."""\n    return a + 1\n',
        "\n\ndef f(\n  a,\n):\n        return (a\n          + 1)\n",
        "def f(a): return a + 0x1\n",
    ],
)
def test_comments_docstrings_and_layout_leave_it_equal(same: str) -> None:
    assert source_digest(same) == source_digest("def f(a):\n    return a + 1\n")


@pytest.mark.parametrize(
    "other",
    [
        "def g(a):\n    return a + 1\n",
        "def f(b):\n    return b + 1\n",
        "def f(a):\n    return a + 2\n",
        "def f(a):\n    return a + 1.0\n",
        "def f(a):\n    return a + True\n",
        "def f(a):\n    return a - 1\n",
        "def f(a=None):\n    return a + 1\n",
        "def f(*a):\n    return a + 1\n",
        "def f(a: int):\n    return a + 1\n",
        "async def f(a):\n    return a + 1\n",
        "@cache\ndef f(a):\n    return a + 1\n",
        "def f(a):\n    return a + 1\nf(1)\n",
        "def f(a):\n    'doc'\n    'not a docstring'\n    return a + 1\n",
        "def f(a):\n    a + 1\n",
    ],
)
def test_any_other_change_changes_it(other: str) -> None:
    assert source_digest(other) != source_digest("def f(a):\n    return a + 1\n")


CONSTANTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.binary(),
)
ASSIGNMENTS = st.builds(
    "{} = x {} {}".format,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<<", "&", "==", "!=", "<", "is", "in", "and", "or"]),
    CONSTANTS.map(repr),
)


@given(ASSIGNMENTS, ASSIGNMENTS)
def test_equal_digests_mean_equal_names_operators_and_constants(one: str, other: str) -> None:
    assert (source_digest(one) == source_digest(other)) == (one == other)


@given(st.lists(st.text(st.characters(exclude_categories=("C", "Zl", "Zp"))), min_size=1))
def test_no_comment_on_any_line_changes_it(comments: list[str]) -> None:
    lines = zip(SOURCE.splitlines(), itertools.cycle(comments), strict=False)
    assert source_digest("\n".join(f"{line}  # {comment}" for line, comment in lines)) == source_digest(SOURCE)


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.py")), ids=lambda path: path.name)
def test_a_reformatted_script_has_an_equal_digest(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert source_digest(ast.unparse(ast.parse(text))) == source_digest(text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SOURCE, "3b9b9357ce22f7f0d33b506945c4cf5e1d9b6bf5b7cc7b5c9cf399a10ae5beef"),
        (NESTED_FORMAT, "c5e1d9ba71cd95669432fe480a2d126d88b9fd04b8d17a72eccba61bfb9f1b31"),
    ],
    ids=["many kinds of nodes", "nested format"],
)
def test_it_is_equal_on_every_supported_python(source: str, expected: str) -> None:
    assert source_digest(source) == expected


MODULES = {
    "main.py": "import direct\nfrom package import member\ndef f():\n    from package.late import name\n",
    "direct.py": "import indirect\nimport json\n",
    "indirect.py": "VALUE = 1\n",
    "package/__init__.py": "SWITCH = 1\n",
    "package/member.py": "VALUE = 1\n",
    "package/late.py": "name = 1\n",
    "stranger.py": "VALUE = 1\n",
}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "stranger.py"])
def test_a_change_in_an_imported_module_changes_it(name: str, digest: Digest) -> None:
    assert digest(MODULES | {name: MODULES[name] + "MORE = 1\n"}) != digest(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_comment_in_an_imported_module_leaves_it_equal(name: str, digest: Digest) -> None:
    assert digest(MODULES | {name: MODULES[name] + "# more\n"}) == digest(MODULES)


def test_a_module_that_is_not_imported_leaves_it_equal(digest: Digest) -> None:
    assert digest(MODULES | {"stranger.py": "VALUE = 2\n"}) == digest(MODULES)


def test_modules_that_import_each_other_are_read_once(digest: Digest) -> None:
    assert digest({"main.py": "import other\n", "other.py": "import main\n"})


@pytest.mark.parametrize("statement", ["from package.member import VALUE", "import package.member"])
def test_the_package_of_an_imported_module_counts(statement: str, digest: Digest) -> None:
    files = {"main.py": statement, "package/__init__.py": "SWITCH = 1\n", "package/member.py": "VALUE = 1\n"}
    assert digest(files | {"package/__init__.py": "SWITCH = 2\n"}) != digest(files)
