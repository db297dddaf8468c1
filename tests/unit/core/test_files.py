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


@pytest.mark.parametrize("damaged", [b'{"text": ', b'{"text": "\xff"}\n'], ids=["cut off", "not UTF-8"])
def test_a_damaged_file_is_named_with_its_line(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + damaged)
    with pytest.raises(UserError, match=r"rows\.jsonl, line \d: damaged since it was written"):
        read_jsonl(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        read_jsonl(tmp_path / "nowhere.jsonl")


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
