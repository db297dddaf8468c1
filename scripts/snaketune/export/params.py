"""Parameters of the export jobs, as their ``--recipe`` holds them."""

from typing import Any, TypedDict


class ExportParams(TypedDict):
    """Parameters of quantize_onnx.py and build_genai.py: those of config/exports/NAME.yaml."""

    method: str
    options: dict[str, Any]


class SwitchableParams(TypedDict):
    """Parameters of export_base_for_adapters.py: the inputs of each target module."""

    parts: dict[str, list[str]]
