"""Make a Python environment from a lock file, once and under a lock, and run a command in it.

Uses nothing but the standard library: it is the first thing that runs on a fresh machine.
Index and find-links settings of pip, from its files or its PIP_ variables, are honoured.
"""

import argparse
import ast
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

UV = "uv==0.13.9"
OLDEST = (3, 11)
# Before an older Python meets what it can't import or define; it can parse this file.
if sys.version_info < OLDEST:
    sys.exit(
        "error: Python {}.{} or newer is needed, this is {}: say which with `make demo PYTHON=python3.12`".format(
            *OLDEST, sys.version.split()[0]
        )
    )

from importlib import metadata  # noqa: E402


def pip_settings(python: str) -> dict[str, str]:
    """Return pip's index settings as UV_ variables, so that uv finds packages where pip would."""
    shown = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    scopes = ("global", "install", ":env:")
    entries = [(line.partition(".")[0], line) for line in shown.splitlines()]
    for _, line in sorted((entry for entry in entries if entry[0] in scopes), key=lambda entry: scopes.index(entry[0])):
        name, _, value = line.partition(".")[2].partition("=")
        found[name] = str(ast.literal_eval(value))
    settings = {
        "UV_DEFAULT_INDEX": found.get("index-url"),
        "UV_INDEX": found.get("extra-index-url"),
        "UV_FIND_LINKS": ",".join(found.get("find-links", "").split()),
        "UV_INSECURE_HOST": found.get("trusted-host"),
        "SSL_CERT_FILE": found.get("cert"),
        "UV_NO_INDEX": found.get("no-index"),
        "UV_HTTP_TIMEOUT": found.get("default-timeout"),
    }
    # pip takes the best version of all indexes; uv would stop at the first that has the name.
    return {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        **{name: value for name, value in settings.items() if value},
        **{name: value for name, value in os.environ.items() if name.startswith("UV_")},
    }


def complete(locks: list[Path], directory: Path) -> bool:
    """Whether the environment has just these locks."""
    stamp = directory / "locks.sha256"
    digests = {hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks}
    return stamp.exists() and digests <= set(stamp.read_text().split())


def place_of(locks: list[Path]) -> Path:
    """Where the environment is or is to be: with the checkout, whose projects share it, if it is there or can be written there."""
    lock = locks[0]
    own = Path("work/environments", f"{lock.parent.name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}")
    shared = Path(__file__).absolute().parents[1] / own
    existing = next(path for path in (shared, *shared.parents) if path.exists())
    return shared if complete(locks, shared) or os.access(existing, os.W_OK) else own


def make(locks: list[Path], directory: Path) -> Path:
    """The environment's Python; made, or brought up to date, unless it has just these locks."""
    digests = [hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks]
    python, stamp = directory / "bin" / "python", directory / "locks.sha256"
    # Without the lock, which can't be taken where a checkout is only read.
    if complete(locks, directory):
        return python
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f".{directory.name}.lock").open("w") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
        except OSError as error:
            sys.exit(
                f"error: {directory.parent} is on a file system without file locks ({error.strerror}): have it mounted with locks (Lustre: -o flock), or work in a directory on another disk"
            )
        if complete(locks, directory):
            return python
        print(f"making {directory} from {', '.join(map(str, locks))}", file=sys.stderr, flush=True)
        stamp.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV], check=True)
        command = [f"{directory}/bin/uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        command += [part for lock in locks for part in ("--requirement", str(lock))]
        subprocess.run(command, check=True, env={**os.environ, **pip_settings(str(python))})
        stamp.write_text("\n".join(digests))
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, nargs="+", required=True, help="requirements with exact versions")
    parser.add_argument(
        "--directory",
        type=Path,
        help="target directory (default: work/environments/NAME-DIGEST of the checkout or, if that is read-only, of the current directory)",
    )
    parser.add_argument(
        "--unless", metavar="PACKAGE", help="use the running Python if it has this package, as with conda"
    )
    parser.add_argument("command", nargs="*", help="a script and its arguments, after --")
    arguments = parser.parse_args()
    if arguments.unless and any(metadata.distributions(name=arguments.unless)):
        python = Path(sys.executable)
    else:
        directory = arguments.directory or place_of(arguments.lock)
        try:
            python = make(arguments.lock, directory.absolute())
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"error: {directory} can't be made: `{' '.join(map(str, error.cmd))}` ended with {error.returncode}; its output is above"
            )
    if arguments.command:
        os.execv(python, [str(python), *arguments.command])


if __name__ == "__main__":
    main()
