"""Backends that load a switchable base once and switch between adapters."""

from pathlib import Path
from typing import Any

import onnxruntime
import onnxruntime_genai

from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.precisions import is_package
from snaketune.inference.genai_backend import GenaiBackend
from snaketune.inference.onnx_backend import OnnxBackend


def check_adapter(adapter: Path, model: Path) -> None:
    """Raise a UserError if an adapter isn't what its manifest says, or was made for another base."""
    records = adapter.with_name("manifest.json")
    manifest.prove(records, adapter.name)
    made, base = (set(manifest.read(path)["inputs"].values()) for path in (records, model.with_name("manifest.json")))
    if not made & base:
        raise UserError(f"{adapter} was made for another base than {model.parent}: export it for this one")


class OnnxAdapterBackend(OnnxBackend):
    """Runs a switchable base with ONNX Runtime."""

    def __init__(self, model: Path, threads: int):
        super().__init__(model, threads)
        self.path = model
        self.adapters: dict[Path, onnxruntime.LoraAdapter] = {}

    def load(self, adapter: Path) -> None:
        """Map an exported adapter into memory, in addition to those already loaded."""
        check_adapter(adapter, self.path)
        self.adapters[adapter] = onnxruntime.LoraAdapter()
        self.adapters[adapter].Load(str(adapter))

    def switch(self, adapter: Path | None) -> None:
        """Use a loaded adapter in the next calls, or with None the base alone."""
        self.options = onnxruntime.RunOptions()
        if adapter:
            self.options.add_active_adapter(self.adapters[adapter])


class GenaiAdapterBackend(GenaiBackend):
    """Runs a switchable base with onnxruntime-genai; a past keeps the adapter it was started with."""

    def __init__(self, model: Path, threads: int):
        super().__init__(model, threads)
        self.path = model
        self.adapters = onnxruntime_genai.Adapters(self.model)
        self.active: Path | None = None

    def load(self, adapter: Path) -> None:
        """Map an exported adapter into memory, in addition to those already loaded."""
        check_adapter(adapter, self.path)
        self.adapters.load(str(adapter), str(adapter))

    def switch(self, adapter: Path | None) -> None:
        """Use a loaded adapter for texts that start from now on, or with None the base alone."""
        self.active = adapter

    def _generator(self) -> Any:
        generator = super()._generator()
        if self.active:
            generator.set_active_adapter(self.adapters, str(self.active))
        return generator


def adapter_backend(model: Path, threads: int) -> OnnxAdapterBackend | GenaiAdapterBackend:
    """Return a decoding.Backend with ``load`` and ``switch`` for model.onnx of a switchable base."""
    return (GenaiAdapterBackend if is_package(model) else OnnxAdapterBackend)(model, threads)
