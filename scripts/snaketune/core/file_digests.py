"""SHA-256 of files, computed no oftener than they change."""

import hashlib
import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from snaketune.core.files import sha256, write_json


@cache
def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read once per process."""
    return sha256(path)


@cache
def lock_digest(path: Path) -> str:
    """SHA-256 of what a lock file installs on Linux: a marker that keeps a package to Linux changes nothing there."""
    return hashlib.sha256(path.read_bytes().replace(b" ; sys_platform == 'linux'", b"")).hexdigest()


class FileDigests:
    """SHA-256 of files that may be large, kept in a file and taken from it while a file is untouched.

    Untouched means equal size, inode, and times of modification and of change: the last can't be
    set, so `cp -p` and `touch -d` are seen too. A file changed within the last two seconds
    isn't remembered, because a further write could leave its times equal.
    """

    def __init__(self, memory: Path):
        self.memory = memory
        try:
            self.known: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}

    def of(self, path: Path) -> str:
        found = path.stat()
        state = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        known = self.known.get(str(path))
        if known and known["state"] == state:
            return str(known["sha256"])
        digest = sha256(path)
        if max(found.st_mtime, found.st_ctime) < time.time() - 2:
            self.known[str(path)] = {"state": state, "sha256": digest}
            # Two calls of Snakemake may write it at once.
            aside = self.memory.with_name(f".{self.memory.name}.{os.getpid()}")
            write_json(aside, self.known)
            aside.replace(self.memory)
        return digest
