"""What follows from the name and the recipe of a precision."""

from typing import Any

from snaketune.core.layout import GENAI_FILES, ONNX_FILES


def backend_of(precision: str) -> str:
    """The name of what runs a precision: onnx-int8, genai-int4."""
    return precision if precision.startswith("genai-") else f"onnx-{precision}"


def files_read(package: bool) -> tuple[str, ...]:
    """What a backend reads of an export: of a temporary one only these are sure to be there still."""
    return GENAI_FILES if package else (*ONNX_FILES[:2], "tokenizer.json")


def calibrates(recipe: dict[str, Any]) -> bool:
    """Whether a method looks at training rows."""
    return recipe["method"] == "static-int8" or recipe["options"].get("algorithm") == "gptq"
