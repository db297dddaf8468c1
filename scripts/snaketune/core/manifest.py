"""Write and verify ``manifest.json``, which equal runs share, and ``provenance.json``, in which they may differ."""

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256, write_json

PACKAGES = (
    "torch", "transformers", "peft", "bitsandbytes", "deepspeed", "accelerate", "tokenizers", "optimum-onnx", "onnx",
    "onnx-ir", "onnxruntime", "onnxruntime-genai", "numpy", "scipy", "scikit-learn", "snakemake",
)  # fmt: skip


def record(directory: Path, recipe: Mapping[str, Any], inputs: list[Path], files: list[Path]) -> None:
    """Write ``directory/manifest.json``: hashes of files and inputs, and the resolved recipe.

    Also write ``provenance.json``: when, where and with which packages it was made.
    """
    # Of the checkout, not of the project; on a cluster it may be another user's, where git would refuse.
    where = ["-c", "safe.directory=*", "-C", os.environ.get("SNAKETUNE", ".")]
    described = ["git", *where, "describe", "--always", "--dirty", "--abbrev=40"]
    commit = subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()
    write_json(
        directory / "provenance.json",
        {
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit or None,
            "hardware": hardware(),
            "python": platform.python_version(),
            "packages": {name: found[0].version for name in PACKAGES if (found := list(distributions(name=name)))},
        },
    )
    write_json(
        directory / "manifest.json",
        {
            "files": {
                path.relative_to(directory).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
                for path in sorted(files)
            },
            "inputs": {path.as_posix(): sha256(path) for path in sorted(inputs)},
            "recipe": recipe,
        },
    )


def read(path: Path) -> dict[str, Any]:
    """Return a manifest's content.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        content: dict[str, Any] = read_json(path)
        if all(isinstance(content[key], dict) for key in ("files", "inputs", "recipe")):
            return content
        reason = "files, inputs and recipe must be mappings"
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run snakemake to make it again") from None
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error)
    raise UserError(f"{path} is no manifest ({reason}): delete it and run snakemake to make it again")


def prove(path: Path, *names: str) -> None:
    """Verify that the files of a manifest, or those of the given names, have the recorded hashes.

    Raises:
        UserError: a file is missing or has changed.
    """
    expected = read(path)["files"]
    for name in names or expected:
        if name not in expected:
            raise UserError(f"{path} doesn't name {name}: delete it and run snakemake to make it again")
        if fault := fault_of(path.parent / name, expected[name]["sha256"], sha256):
            raise UserError(f"{fault}, though {path} names it: delete it and run snakemake to make it again")


def prove_sources(digests: dict[str, str]) -> None:
    """Raise a UserError if a user's file has changed since the job was planned."""
    for name, digest in digests.items():
        if Path(name).exists() and sha256(Path(name)) != digest:
            raise UserError(f"{name} has changed since the job was planned: run snakemake again")


def fault_of(path: Path, expected: str, digest: Callable[[Path], str]) -> str | None:
    """Return what is wrong with a file whose SHA-256 should be ``expected``, or None."""
    if not path.is_file():
        return f"{path} is missing"
    if (found := digest(path)) != expected:
        return f"{path} has changed since it was made (sha256 {found[:12]}, expected {expected[:12]})"
    return None


def hardware() -> dict[str, Any]:
    """Return this machine's processor name, core count and total memory in bytes."""
    cpuinfo = Path("/proc/cpuinfo")
    named = cpuinfo.exists() and re.search(r"^model name\s*: *(.*\S)", cpuinfo.read_text(), re.MULTILINE)
    return {
        "processor": named[1] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
