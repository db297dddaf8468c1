"""What follows from the name and the recipe of a precision."""

from typing import Any


def backend_of(precision: str) -> str:
    """The name of what runs a precision: onnx-int8, genai-int4."""
    return precision if precision.startswith("genai-") else f"onnx-{precision}"


def calibrates(recipe: dict[str, Any]) -> bool:
    """Whether a method looks at training rows."""
    return recipe["method"] == "static-int8" or recipe["options"].get("algorithm") == "gptq"
