"""The hardware and package versions of a measurement."""

import platform
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from snaketune.core import manifest

PACKAGES = {"torch", "transformers", "peft", "trl", "onnxruntime", "onnxruntime-genai", "numpy", "llama_cpp_python"}
INSTRUCTIONS = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm"}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the measured packages that the path has now."""
    found = {one.name: one.version for one in distributions(path=sys.path)}
    return {"python": platform.python_version(), **{name: found[name] for name in sorted(PACKAGES & set(found))}}


def hardware() -> dict[str, Any]:
    """Return the hardware as a manifest has it, and the instruction sets that decide the speed of matrix products."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return {**manifest.hardware(), "instructions": sorted(INSTRUCTIONS & set(flags))}
