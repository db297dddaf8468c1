"""Files are read with clear errors and written whole or not at all."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.core.errors import UserError
from snaketune.core.files import need_space, read_jsonl, write_jsonl, written_whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(rows=st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=5))
def test_written_rows_are_read_back_equal(
    rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n',
        b'\n{"text": "a"}\n \t\n\n{"text": "b"}',
        b'{"text": "a"}\r\n{"text": "b"}\r\n',
    ],
    ids=["byte order mark", "blank lines", "Windows line ends"],
)
def test_harmless_variants_are_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert read_jsonl(path) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n  \n", "empty"),
        (b'{"text": "a"}\n\n{"text": "\xff"}\n', "line 3: not UTF-8"),
        ('{"text": "a"}'.encode("utf-16"), "line 1: not UTF-8"),
        (b'{"text": "a"}\n{"text": }\n', "line 2: not JSON (Expecting value at column 10)"),
        (b"[" * 100000, "line 1: not JSON (nested too deep)"),
        (b'{"number": ' + b"1" * 5000 + b"}", "line 1: not JSON"),
        (b'{"text": "a"}\n["b"]\n', "line 2: expected an object"),
        (b'{"text": "a"}\nnull\n', "line 2: expected an object"),
        (rb'{"text": "half of a pair: \ud83d"}', "line 1"),
    ],
    ids=[
        "empty",
        "only blank lines",
        "not UTF-8",
        "UTF-16",
        "not JSON",
        "nested too deep",
        "endless number",
        "list",
        "null",
        "lone surrogate",
    ],
)
def test_a_faulty_file_is_refused_with_its_name_and_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_jsonl(path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        read_jsonl(tmp_path / "nowhere.jsonl")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read_jsonl(tmp_path)


def test_an_interrupted_write_keeps_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as aside:
        aside.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_write_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("old", "new"):
        with written_whole(path) as aside:
            aside.write_text(text)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_row_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"value": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl(path, [{"value": float("nan")}])
    assert read_jsonl(path) == [{"value": 1}]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_message(code: int, tmp_path: Path) -> None:
    message = r"no space left on the disk .* while writing file\.txt"
    with pytest.raises(UserError, match=message), written_whole(tmp_path / "file.txt") as aside:
        aside.write_text("half")
        raise OSError(code, "full")
    assert list(tmp_path.iterdir()) == []


def test_another_failure_of_the_disk_is_not_called_a_full_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="broken"), written_whole(tmp_path / "file.txt") as aside:
        aside.write_text("half")
        raise OSError(errno.EIO, "broken")


def test_missing_space_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training needs .* MiB are free"):
        need_space(tmp_path / "not" / "made" / "yet", 2**80, "training")
    need_space(tmp_path / "not" / "made" / "yet", 1, "training")
