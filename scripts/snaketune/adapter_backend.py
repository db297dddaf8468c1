"""A switchable base, loaded once, and the adapters that it computes with in turn."""

from pathlib import Path
from typing import Any

import onnxruntime

from snaketune import manifest
from snaketune.errors import UserError
from snaketune.onnx_backend import OnnxBackend


class _Adapted:
    """A session each of whose runs has the active adapter."""

    def __init__(self, session: onnxruntime.InferenceSession):
        self.session = session
        self.options: onnxruntime.RunOptions | None = None

    def run(self, names: list[str] | None, feed: dict[str, Any]) -> Any:
        return self.session.run(names, feed, self.options)


class AdapterBackend(OnnxBackend):
    """Implements scoring.Backend over a switchable base; `switch` changes what it computes, not its weights."""

    def __init__(self, model: Path, threads: int, provider: str = "CPUExecutionProvider"):
        super().__init__(model, threads, None, provider)
        self.base = manifest.read(model.with_name("manifest.json"))
        self.adapted = self.session = _Adapted(self.session)
        self.adapters: dict[Path, onnxruntime.LoraAdapter] = {}

    def load(self, adapter: Path) -> None:
        """Map an exported adapter into memory, beside those that are there.

        Raises:
            UserError: it isn't what its manifest says, or was made for another base.
        """
        made = manifest.read(adapter.with_name("manifest.json"))
        manifest.prove(adapter.with_name("manifest.json"), adapter.name)
        if not set(made["inputs"].values()) & set(self.base["inputs"].values()):
            raise UserError(
                f"{adapter} was made for another base (their manifests share no input): export it for this one"
            )
        self.adapters[adapter] = onnxruntime.LoraAdapter()
        self.adapters[adapter].Load(str(adapter))

    def switch(self, adapter: Path | None) -> None:
        """Let the next calls compute with an adapter, loaded now if it wasn't, or with the base alone."""
        if adapter is None:
            self.adapted.options = None
            return
        if adapter not in self.adapters:
            self.load(adapter)
        self.adapted.options = onnxruntime.RunOptions()
        self.adapted.options.add_active_adapter(self.adapters[adapter])
