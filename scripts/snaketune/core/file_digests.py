"""Digests of files and of code, computed no oftener than they change."""

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from snaketune.core import digest
from snaketune.core.files import sha256


@cache
def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read once per process."""
    return sha256(path)


@cache
def lock_digest(path: Path) -> str:
    """SHA-256 of what a lock file installs on Linux: a marker that keeps a package to Linux changes nothing there."""
    return hashlib.sha256(path.read_bytes().replace(b" ; sys_platform == 'linux'", b"")).hexdigest()


class _Kept:
    """What a file keeps from one call to the next: nothing if it is missing or spoiled."""

    def __init__(self, memory: Path):
        self.memory = memory
        try:
            self.known: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}

    def _keep(self) -> None:
        # Two calls of Snakemake may write it at once; one that can't will compute again.
        aside = self.memory.with_name(f".{self.memory.name}.{os.getpid()}")
        with suppress(OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(self.known), encoding="utf-8")
            aside.replace(self.memory)


class FileDigests(_Kept):
    """SHA-256 of files that may be large, kept in a file and taken from it while a file is untouched.

    Untouched means equal size, inode, and times of modification and of change: the last can't be
    set, so `cp -p` and `touch -d` are seen too. A file changed within the last two seconds
    isn't remembered, because a further write could leave its times equal.
    """

    def of(self, path: Path) -> str:
        found = path.stat()
        state = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        known = self.known.get(str(path))
        if known and known["state"] == state:
            return str(known["sha256"])
        fresh = sha256(path)
        if max(found.st_mtime, found.st_ctime) < time.time() - 2:
            self.known[str(path)] = {"state": state, "sha256": fresh}
            self._keep()
        return fresh


class CodeDigests(_Kept):
    """``code_digest`` of scripts below ``root``, kept in a file and taken from it while no module there is another.

    To read all modules takes 4 ms, to follow what each of the default experiment's jobs imports 0.9 s.
    """

    def __init__(self, root: Path, memory: Path):
        super().__init__(memory)
        self.root, state = root, digest.code_state(root)
        if (
            not isinstance(self.known, dict)
            or self.known.keys() != {"state", "digests"}
            or self.known["state"] != state
        ):
            self.known = {"state": state, "digests": {}}

    def of(self, script: Path) -> str:
        """Digest a script.

        Raises:
            UserError: as ``code_digest``.
        """
        digests, name = self.known["digests"], script.relative_to(self.root).as_posix()
        if name not in digests:
            digests[name] = digest.code_digest(script, self.root)
            self._keep()
        return str(digests[name])
