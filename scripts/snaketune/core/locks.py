"""Versions in a lock file."""

import re
from collections.abc import Iterable
from pathlib import Path

from snaketune.core.errors import UserError


def pins(lock: Path, names: Iterable[str]) -> list[str]:
    """Return the lines `NAME==VERSION` of the named packages, without their markers.

    Raises:
        UserError: the lock file doesn't pin one of them.
    """
    text = lock.read_text(encoding="utf-8")
    found = {name: re.search(rf"^{name}==[^\s;]+", text, re.MULTILINE) for name in names}
    if missing := [name for name, pin in found.items() if not pin]:
        raise UserError(f"{lock}: no line {missing[0]}==VERSION: run `make lock`")
    return [pin[0] for pin in found.values() if pin]
