"""What a measurement was made on and with."""

import platform
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from snaketune.core import manifest

PACKAGES = {"torch", "transformers", "onnxruntime", "onnxruntime-genai", "numpy", "llama_cpp_python"}
INSTRUCTIONS = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm"}


def versions() -> dict[str, str]:
    """Of Python and of the packages that are measured, where the path has them now."""
    found = {one.name: one.version for one in distributions(path=sys.path)}
    return {"python": platform.python_version(), **{name: found[name] for name in sorted(PACKAGES & set(found))}}


def hardware() -> dict[str, Any]:
    """That of a manifest, and which instructions the processor has that decide how fast products are."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return {**manifest.hardware(), "instructions": sorted(INSTRUCTIONS & set(flags))}
