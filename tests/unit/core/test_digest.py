"""The digest of code changes with what code does, and with nothing else."""

import ast
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.core.digest import _Modules, code_digest
from snaketune.core.errors import UserError
from snaketune.core.file_digests import CodeDigests

REPOSITORY = Path(__file__).parents[3]
SCRIPTS = REPOSITORY / "scripts"

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

ERRORS = {
    "core/errors.py": "class UserError(Exception):\n    pass\n",
    "core/cli.py": "def job_parser(*given, **paths):\n    pass\n",
}
MESSAGES = """
import argparse, sys, warnings
from core import cli, errors
from core.errors import UserError

def main(path, n, failed):
    '''Doc.'''
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, help="how many")
    cli.job_parser(__doc__, "seed, rows", "--out", data="the rows")
    warnings.warn(f"odd: {n}", FutureWarning)
    print("reading", path)
    print(f"{n} rows", file=sys.stderr)
    if n:
        raise errors.UserError(f"{path}: {n:.1f} rows" + ("" if failed else ", none failed"))
    return UserError("nothing in " + str(path))

if __name__ == "__main__":
    errors.run(main)
"""
NESTED_FORMAT = 'text = f"{value:>{width}}"\n'


def digest(files: dict[str, str] | str) -> str:
    """The digest of main.py, alone or among other files."""
    files = {"main.py": files} if isinstance(files, str) else files
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return code_digest(root / "main.py")


@pytest.mark.parametrize(
    "same",
    [
        "# why\ndef f(a):  # what\n    return a + 1\n",
        '"""Module."""\n\ndef f(a):\n    """Function."""\n    return a + 1\n',
        "\n\ndef f(\n  a,\n):\n        return (a\n          + 1)\n",
        "def f(a): return a + 0x1\n",
    ],
)
def test_comments_docstrings_and_layout_leave_it_equal(same: str) -> None:
    assert digest(same) == digest("def f(a):\n    return a + 1\n")


@pytest.mark.parametrize(
    "other",
    [
        "def g(a):\n    return a + 1\n", "def f(b):\n    return b + 1\n", "def f(a):\n    return a + 2\n",
        "def f(a):\n    return a + 1.0\n", "def f(a):\n    return a + True\n", "def f(a):\n    return a - 1\n",
        "def f(a=None):\n    return a + 1\n", "def f(*a):\n    return a + 1\n", "def f(a: int):\n    return a + 1\n",
        "async def f(a):\n    return a + 1\n", "@cache\ndef f(a):\n    return a + 1\n",
        "def f(a):\n    return a + 1\nf(1)\n", "def f(a):\n    'doc'\n    'not a docstring'\n    return a + 1\n",
        "def f(a):\n    a + 1\n",
    ],
)  # fmt: skip
def test_any_other_change_changes_it(other: str) -> None:
    assert digest(other) != digest("def f(a):\n    return a + 1\n")


CONSTANTS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.binary()
)
ASSIGNMENTS = st.builds(
    "{} = x {} {}".format,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<<", "&", "==", "!=", "<", "is", "in", "and", "or"]),
    CONSTANTS.map(repr),
)


@given(ASSIGNMENTS, ASSIGNMENTS)
def test_equal_digests_mean_equal_names_operators_and_constants(one: str, other: str) -> None:
    assert (digest(one) == digest(other)) == (one == other)


def test_every_script_can_be_followed_and_reformatted(tmp_path: Path) -> None:
    for path in SCRIPTS.rglob("*.py"):
        copy = tmp_path / path.relative_to(SCRIPTS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(ast.unparse(ast.parse(path.read_text())))
    for path in SCRIPTS.rglob("*.py"):
        assert code_digest(path, SCRIPTS) == code_digest(tmp_path / path.relative_to(SCRIPTS), tmp_path), path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SOURCE, "f9425e7fb1ed64c9d9d21b808321d6e01b1c4910dcd9d37aa4031edb31a59256"),
        (NESTED_FORMAT, "bc6f30a0bae1d0cf7518ebcd5296e19cf4b312f3a3bebd93720b1f670123f8ad"),
        (MESSAGES, "3c359179888b6f70fd26e2878ea05c9ee81ee6fac72626d6bca3da8acdb90c76"),
    ],
    ids=["many kinds of nodes", "nested format", "what is left out"],
)
def test_it_is_equal_on_every_supported_python(source: str, expected: str) -> None:
    assert digest(ERRORS | {"main.py": source}) == expected


MODULES = {
    "main.py": "import direct\nfrom package import member\ndef f():\n    from package.late import name\n"
    "if TYPE_CHECKING:\n    from package import typed\nRUNTIMES = ['package.named']\n",
    "direct.py": "import indirect\nimport json\n",
    "indirect.py": "VALUE = 1\n",
    "package/__init__.py": "SWITCH = 1\n",
    "package/member.py": "VALUE = 1\n",
    "package/late.py": "name = 1\n",
    "package/typed.py": "name = 2\n",
    "package/named.py": "name = 3\n",
}


@pytest.mark.parametrize("name", MODULES)
def test_a_change_in_an_imported_module_changes_it(name: str) -> None:
    assert digest(MODULES | {name: MODULES[name] + "MORE = 1\n"}) != digest(MODULES)


def test_a_comment_or_a_module_that_is_not_imported_leaves_it_equal() -> None:
    commented = {name: text + "# more\n" for name, text in MODULES.items()}
    assert digest(commented | {"stranger.py": "VALUE = 2\n"}) == digest(MODULES)


def kept(root: Path) -> str:
    """The digest of main.py as another call of Snakemake finds it."""
    _Modules.cache_clear()
    return CodeDigests(root, root / "kept/digests.json").of(root / "main.py")


@pytest.mark.parametrize(
    "name", ["main.py", "indirect.py", "package/__init__.py", "package/named.py", "direct/__init__.py"]
)
def test_a_kept_digest_is_that_of_the_code_as_it_is_now(tmp_path: Path, name: str) -> None:
    (tmp_path / "package").mkdir()
    for one, text in MODULES.items():
        (tmp_path / one).write_text(text)
    before, changed = kept(tmp_path), tmp_path / name
    changed.parent.mkdir(exist_ok=True)
    times, text = changed.stat() if changed.exists() else None, MODULES.get(name, "")
    changed.write_text(text.replace("1", "2") if "1" in text else text + "MORE = 1\n")
    if times:
        os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert kept(tmp_path) == code_digest(tmp_path / "main.py") != before
    changed.write_text(text) if times else changed.unlink()
    assert kept(tmp_path) == before


def test_unchanged_code_is_not_followed_again_and_a_spoiled_memory_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.py").write_text("import other\n")
    (tmp_path / "other.py").write_text("VALUE = 1\n")
    before = kept(tmp_path)
    (tmp_path / "kept/digests.json").write_text("{")
    assert kept(tmp_path) == before
    monkeypatch.setattr("snaketune.core.digest.code_digest", lambda *_: "followed again")
    assert kept(tmp_path) == before
    monkeypatch.setattr("sys.version", "another Python")
    assert kept(tmp_path) == "followed again"


USE = "import json\n{}\nprint(files.read(layout.NAMES), SIZE, width)\n"
FLAT = {
    "main.py": USE.format("from house import files, layout\nfrom house.sizes import SIZE, WIDTH as width"),
    "house/__init__.py": "import os\nos.environ['A'] = '1'\n",
    "house/files.py": "from house import layout\ndef read(x):\n    return x, layout\n",
    "house/layout.py": "NAMES = 1\n",
    "house/sizes.py": "SIZE = 1\nWIDTH = 2\n",
}


@pytest.mark.parametrize(
    ("imports", "name", "place"),
    [
        (
            "from house.a.sizes import SIZE\nfrom house.a.sizes import WIDTH as width\nfrom house import layout, files",
            "house/sizes.py",
            "house/a/sizes.py",
        ),
        (
            "import house.layout as layout\nfrom house import files\nfrom house.wide import WIDTH as width, SIZE",
            "house/sizes.py",
            "house/wide.py",
        ),
        (
            "from house import readers, layout\nfrom house.sizes import SIZE, WIDTH as width",
            "house/files.py",
            "house/readers.py",
        ),
    ],
    ids=["moved to a package", "renamed, and imported in other ways", "renamed where its name is used"],
)
def test_a_moved_or_renamed_module_leaves_it_equal(imports: str, name: str, place: str) -> None:
    elsewhere = {place if name == old else old: text for old, text in FLAT.items()}
    used = USE.replace("files", "readers") if place == "house/readers.py" else USE
    package = {"house/a/__init__.py": '"""A room."""\n'}
    assert digest(elsewhere | package | {"main.py": used.format(imports)}) == digest(FLAT)


TWO = {"a.py": "VALUE = 1\n", "b.py": "VALUE = 2\n"}
TWINS = {"a.py": "VALUE = []\n", "b.py": "VALUE = []\n"}


# What could be missed by reading imports as a set of digests: a program, and another that does something else.
@pytest.mark.parametrize(
    ("files", "one", "other"),
    [
        (TWO, "import a as x, b as y\nx.f(y)\n", "import b as x, a as y\nx.f(y)\n"),
        (TWO, "from a import f as x\nfrom b import f as y\n", "from b import f as x\nfrom a import f as y\n"),
        (TWO, "from a import VALUE\nfrom b import VALUE\n", "from b import VALUE\nfrom a import VALUE\n"),
        (TWO, "if c: import a as x\nelse: import b as x\n", "if c: import b as x\nelse: import a as x\n"),
        (TWO, "from a import f as x\n", "from a import g as x\n"),
        (TWO, "import a\ng(1)\n", "g(1)\nimport a\n"),
        (TWO, "import a\ndef f(b):\n    return a\n", "import a\ndef f(a):\n    return a\n"),
        (TWO, "import a\ndef f(a):\n    return a\n", "import a as c\ndef f(a):\n    return c\n"),
        (TWO, "def f(): import a\ndef g(): return a\n", "def f(): import a as c\ndef g(): return a\n"),
        (TWINS, "import a, b\na.VALUE.append(b)\n", "import a, b\na.VALUE.append(a)\n"),
        (TWO, "load('a')\n", "load('b')\n"),
    ],
)
def test_what_is_bound_to_which_name_where_counts(files: dict[str, str], one: str, other: str) -> None:
    assert digest(files | {"main.py": one}) != digest(files | {"main.py": other})


@pytest.mark.parametrize("text", ["DATA = __file__\n", "DATA = __name__.split('.')\n", "DATA = __package__\n"])
def test_a_module_that_reads_where_it_lies_counts_with_its_place(text: str) -> None:
    here, there = ({"main.py": f"from {room} import m\n", f"{room}/m.py": text} for room in ("here", "there"))
    assert digest(here) != digest(there)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\nfrom . import a\n", 2),
        ("from a import *\n", 1),
        ("def f():\n    from json import *\n", 2),
        ("import package.member\n", 1),
        ("from snaketune.gone import f\n", 1),
    ],
)
def test_an_import_that_cannot_be_followed_is_refused(text: str, line: int) -> None:
    with pytest.raises(UserError, match=rf"main\.py, line {line}: "):
        digest(TWO | {"main.py": text, "package/member.py": ""})


@pytest.mark.parametrize("text", ["import m\nm.x.f()\n", "\nfrom m import x\n", "\nfrom m import y as x\n"])
def test_a_module_is_imported_from_where_it_is(text: str) -> None:
    """Otherwise x and y could be swapped in m unseen, as the names of modules are left out there."""
    with pytest.raises(UserError, match=r"main\.py, line 2: m\.py only imports [xy]; import the module itself"):
        digest(TWO | {"main.py": text, "m.py": "import a as x, b as y\n"})


def test_modules_that_import_each_other_are_refused() -> None:
    with pytest.raises(UserError, match=r"circular import: a\.py imports b\.py imports a\.py"):
        digest({"main.py": "import a\n", "a.py": "import b\n", "b.py": "def f():\n    import a\n"})


def reworded(source: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def test_the_words_of_messages_leave_it_equal() -> None:
    other = reworded(
        MESSAGES,
        ("Doc.", "What main does."),
        ('"how many"', '"the number of rows"'),
        ("seed, rows", "rows, seed"),
        ('"the rows"', '"rows to read"'),
        ("odd: {n}", "{n} is odd"),
        ('"reading"', '"read"'),
        ("{n} rows", "rows: {n}"),
        ("{path}: {n:.1f} rows", "in {path} {n:.1f} rows:"),
        (", none failed", "; all are fine"),
        ("nothing in ", "there is nothing in "),
    )
    assert digest(ERRORS | {"main.py": other}) == digest(ERRORS | {"main.py": MESSAGES})


@pytest.mark.parametrize(
    "change",
    [
        ("{path}: {n:.1f}", "{path}: {n:.2f}"), ("{path}: {n:.1f}", "{n}: {n:.1f}"),
        ("if failed else", "if path else"), ("+ str(path)", "+ repr(path)"),
        ('"nothing in " + str(path)', '"nothing in {}".format(path)'), ("odd: {n}", "odd: {n + 1}"),
        ("FutureWarning", "UserWarning"), ('"--n"', '"--m"'), ('"--out"', '"--output"'), ("data=", "rows="),
        ('help="how many"', 'help="how many", default="1"'), ("    if n:", "    if path:"),
        ("file=sys.stderr", "file=path"), ("raise errors.", "return errors."),
    ],
)  # fmt: skip
def test_an_expression_in_a_message_counts(change: tuple[str, str]) -> None:
    assert digest(ERRORS | {"main.py": reworded(MESSAGES, change)}) != digest(ERRORS | {"main.py": MESSAGES})


# Text that looks like a message and is a result: each could be left out by mistake.
@pytest.mark.parametrize(
    "source",
    [
        "print('one', file=out)\n",
        "import sys\nprint('one', file=sys.stdout if sys.argv else out)\n",
        "print(1, end='one')\n",
        "print(1, **{'file': out, 'end': 'one'})\n",
        "def print(text):\n    out.write(text)\nprint('one')\n",
        "raise ValueError('one')\n",
        "class UserError(Exception): pass\nout = UserError('one')\n",
        "from core.errors import UserError\ndef f(UserError):\n    UserError('one')\n",
        "from core.errors import UserError\nraise UserError(TEXTS['one'])\n",
        "from core.errors import UserError\nraise UserError(out.write('one'))\n",
        "from core.errors import UserError\nraise UserError(f\"{out.write('one')}\")\n",
        "from core.errors import UserError\nraise UserError('a' if name == 'one' else 'b')\n",
        "warnings = out\nwarnings.warn('one')\n",
        "import warnings\nwarnings.filterwarnings('error', 'one')\n",
        "parser.add_field(help='one')\n",
        "out.write(help='one')\n",
        "'''one'''\nout.write(__doc__)\n",
        "def f():\n    '''one'''\nout.write(f.__doc__)\n",
        "def f():\n    x = 1\n    'one'\n",
    ],
)
def test_text_that_is_no_message_counts(source: str) -> None:
    one, other = (ERRORS | {"main.py": text} for text in (source, source.replace("one", "two")))
    assert digest(one) != digest(other)


def test_what_a_job_prints_goes_nowhere_but_to_its_log() -> None:
    """The digest leaves the words of prints out, so no rule may make a result of them."""
    for path in (REPOSITORY / "rules").rglob("*.smk"):
        assert set(re.findall(r"^\s+.*(?:>|\btee)\s*(\{\w+)", path.read_text(), re.MULTILINE)) <= {"{log"}, path
