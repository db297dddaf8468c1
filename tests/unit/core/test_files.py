"""Files are read with clear errors and written whole or not at all."""

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from snaketune.core.errors import UserError
from snaketune.core.files import claim, need_space, read_jsonl, write_jsonl, written_together, written_whole

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
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": ', r"rows\.jsonl, line 2: damaged since it was written"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', r"rows\.jsonl, line 2: damaged since it was written"),
        (None, r"rows\.jsonl: no such file"),
    ],
    ids=["cut off", "not UTF-8", "missing"],
)
def test_a_damaged_or_missing_file_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content:
        (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_jsonl(tmp_path / "rows.jsonl")


def test_a_write_replaces_the_old_file_or_if_interrupted_keeps_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("older", "old"):
        with written_whole(path) as aside:
            aside.write_text(text)
    with pytest.raises(KeyboardInterrupt), written_whole(path) as aside:
        aside.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_row_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"value": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl(path, [{"value": float("nan")}])
    assert read_jsonl(path) == [{"value": 1}]


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (errno.ENOSPC, UserError, r"no space left on the disk .* while writing file\.txt"),
        (errno.EDQUOT, UserError, r"no space left on the disk .* while writing file\.txt"),
        (errno.EIO, OSError, "broken"),
    ],
)
def test_a_full_disk_and_no_other_failure_is_one_clear_message(
    code: int, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message), written_whole(tmp_path / "file.txt") as aside:
        aside.write_text("half")
        raise OSError(code, "broken")
    assert list(tmp_path.iterdir()) == []


def test_missing_space_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training needs .* MiB are free"):
        need_space(tmp_path / "not" / "made" / "yet", 2**80, "training")
    need_space(tmp_path / "not" / "made" / "yet", 1, "training")


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o027, 0o077])
def test_whoever_writes_a_file_the_umask_says_who_reads_it(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with written_whole(tmp_path / "one.safetensors") as aside:
            save_file({"weight": np.zeros(1)}, aside)
        with written_together(tmp_path / "model") as directory:
            save_file({"weight": np.zeros(1)}, directory / "model.safetensors")
            (directory / "config.json").write_text("{}")
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert found == dict.fromkeys(("one.safetensors", "model.safetensors", "config.json", "plain"), 0o666 & ~mask)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_named_as_such(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"without file locks \(\S+ at /.*: .*Lustre") as raised:
        claim(tmp_path / "work/run")
    assert "another process" not in str(raised.value)
    assert os.strerror(code) in str(raised.value)


def test_what_another_process_has_is_said_to_be_so(tmp_path: Path) -> None:
    with (tmp_path / ".run.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another process is using .*/run"):
            claim(tmp_path / "run")
        with pytest.raises(UserError, match="another snakemake submits"):
            claim(tmp_path / "run", "another snakemake submits")
