"""``manifest.json``: what equal runs share. ``provenance.json``: what they need not."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from snaketune.errors import UserError
from snaketune.files import read_json, sha256, write_json

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "deepspeed",
    "accelerate",
    "tokenizers",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "numpy",
    "scipy",
    "scikit-learn",
    "snakemake",
)


def record(directory: Path, recipe: dict[str, Any], inputs: list[Path], files: list[Path]) -> None:
    """Write ``directory/manifest.json``: hashes of files and inputs, and the resolved recipe.

    Beside it goes ``provenance.json``: when, where and with which packages it was made.
    """
    _write_provenance(directory)
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


def _write_provenance(directory: Path) -> None:
    write_json(
        directory / "provenance.json",
        {
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "hardware": hardware(),
            "python": platform.python_version(),
            "packages": {name: found for name in PACKAGES if (found := _version(name))},
        },
    )


def check_files(manifest: Path) -> dict[str, Any]:
    """Read a manifest and prove that the files it names are the ones on disk.

    Raises:
        UserError: a file is missing or its content isn't what the manifest says.
    """
    content: dict[str, Any] = read_json(manifest)
    for name, expected in content["files"].items():
        path = manifest.parent / name
        if not path.is_file():
            raise UserError(f"{path} is missing, but {manifest} names it: run snakemake to make it again")
        if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
            raise UserError(
                f"{path} isn't what {manifest} says (sha256 differs): delete it and run snakemake to make it again"
            )
    return content


def hardware() -> dict[str, Any]:
    """Processor name, core count and total memory in bytes of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next(
            (
                line.split(":", 1)[1].strip()
                for line in cpuinfo.read_text().splitlines()
                if line.startswith("model name")
            ),
            model,
        )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _commit() -> str | None:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
