"""Reading with clear errors, and writing that no interruption leaves half done."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from snaketune.core.errors import UserError

_claims: list[TextIO] = []
SCRATCH = (".part", ".export", ".quantize")
# By what YAML's own message has in it.
YAML_ADVICE = {
    "\\t": "indent with spaces, not tabs",
    "escape character": 'within "…" a \\ begins an escape: write the path with /',
    "mapping values": "put a text that has a colon and a space in it in quotes",
}


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write aside; on success it is synced and renamed to ``path``.

    Raises:
        UserError: the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        mode = usual_mode(aside)
        yield aside
        _finish(aside, mode)
        aside.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left on the disk of {path.parent} while writing {path.name}", passing=True
            ) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that is removed afterwards; what a killed process left there goes first."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def written_together(directory: Path) -> Iterator[Path]:
    """Yield an empty directory to write files into; on success they are synced and moved to ``directory``."""
    with scratch(directory / ".part") as aside:
        mode = usual_mode(aside / ".mode")
        yield aside
        for path in sorted(aside.iterdir()):
            _finish(path, mode)
            path.replace(directory / path.name)


def is_scratch(path: Path, root: Path) -> bool:
    """Return True for a temporary file of a running or killed process."""
    return any(part.startswith(".") and part.endswith(SCRATCH) for part in path.relative_to(root).parts)


def usual_mode(path: Path) -> int:
    """Return the mode that a new file at ``path`` has, by the umask or the directory's ACL; no file is left there."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def _finish(path: Path, mode: int) -> None:
    """Sync a file, and let those read it who may: safetensors and onnx write for the owner alone."""
    path.chmod(mode)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def claim(work: Path, rival: str = "") -> None:
    """Be the only process with this directory of checkpoints, until it ends.

    Raises:
        UserError: another one lives: a job outlives Snakemake where only Snakemake was killed. The
            message is ``rival``, if given. Or the file system has no locks.
    """
    work.parent.mkdir(parents=True, exist_ok=True)
    guard = work.with_name(f".{work.name}.lock").open("w")
    try:
        lock(guard, wait=False)
    except BlockingIOError:
        raise UserError(
            rival
            or f"another process is using {work}, perhaps left by a killed Snakemake: wait for it or end it, then run snakemake again",
            passing=True,
        ) from None
    _claims.append(guard)


def lock(guard: TextIO, wait: bool = True) -> None:
    """Lock an open file until it is closed.

    Raises:
        BlockingIOError: another process has it, and ``wait`` is false.
        UserError: its file system has no locks.
    """
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        place = Path(guard.name).absolute().parent
        raise UserError(
            f"{place} is on a file system without file locks ({_file_system(place)}: {error.strerror}), so two processes could write the same files: have it mounted with locks (Lustre: -o flock), or work in a directory on another disk (work/ may be a link to one)"
        ) from None


def _file_system(directory: Path) -> str:
    """Return the type and mount point of a directory's file system, as Linux names them."""
    mounts = Path("/proc/self/mounts")
    lines = [line.split()[1:3] for line in mounts.read_text().splitlines()] if mounts.exists() else []
    found = [(point, kind) for point, kind in lines if directory.resolve().is_relative_to(point)]
    return "{1} at {0}".format(*max(found, key=lambda pair: len(pair[0]))) if found else "unknown"


def need_space(directory: Path, needed: int, what: str) -> None:
    """Raise a UserError, before any work, where ``directory`` can't hold ``needed`` bytes."""
    existing = next(p for p in [directory, *directory.absolute().parents] if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{what} needs {needed / 2**20:,.0f} MiB in {directory}, but only {free / 2**20:,.0f} MiB are free: make room, or run in a directory on another disk",
            passing=True,
        )


def prefer_programs_of(directory: Path) -> None:
    """Let child processes find the programs of ``directory`` first."""
    os.environ["PATH"] = f"{directory}{os.pathsep}{os.environ['PATH']}"


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    write_text(
        path, "".join(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    )


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        UserError: it is missing, not UTF-8 or not YAML, or has a key twice; the message names the file and the line.
    """
    import yaml  # the export environment needn't have it

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            """Refuse a repeated key; once aliases are merged, one may be there to override a merged one."""
            mapping = super().compose_mapping_node(anchor)
            first: dict[tuple[str, str], Any] = {}
            for key, _ in mapping.value:
                if (one := first.setdefault((key.tag, str(key.value)), key)) is not key:
                    raise UserError(
                        f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} appears twice, first in line {one.start_mark.line + 1}; keep one"
                    )
            return mapping

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 (it is a SafeLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", error))
        advice = next((f"; {words}" for part, words in YAML_ADVICE.items() if part in problem), "")
        raise UserError(
            f"{path}" + (f", line {mark.line + 1}" if mark else "") + f": not YAML ({problem}){advice}"
        ) from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file that this workflow wrote.

    Raises:
        UserError: it is missing, or no longer what was written; the message names the line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run snakemake to make it") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                rows.append(json.loads(line))
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: damaged since it was written ({error}); delete it and run snakemake again"
            ) from None
    return rows
