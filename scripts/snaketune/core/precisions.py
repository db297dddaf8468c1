"""Facts that follow from a precision's name and parameters."""

from pathlib import Path
from typing import Any

from snaketune.core.layout import GENAI_FILES, ONNX_FILES


def backend_of(precision: str) -> str:
    """Return the name of the backend that runs a precision: onnx-int8, genai-int4."""
    return precision if precision.startswith("genai-") else f"onnx-{precision}"


def exported(base_precision: str) -> str | None:
    """Return the export whose numbers adapters are trained on, `int4` of `export:int4`, or None."""
    return base_precision.removeprefix("export:") if base_precision.startswith("export:") else None


def is_package(model: Path) -> bool:
    """Return true if onnxruntime-genai built ``model``."""
    return model.with_name("genai_config.json").is_file()


def files_read(package: bool) -> tuple[str, ...]:
    """Return the files of an export that a backend reads: of a temporary one, only these are sure to remain."""
    return GENAI_FILES if package else (*ONNX_FILES[:2], "tokenizer.json")


def calibrates(recipe: dict[str, Any]) -> bool:
    """Return True if a method needs rows of a scenario."""
    return recipe["method"] in ("static-int8", "auto", "genai-auto") or recipe["options"].get("algorithm") == "gptq"
