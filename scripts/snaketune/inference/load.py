"""Choose what runs a model by the files in its directory: torch, ONNX Runtime or onnxruntime-genai."""

from pathlib import Path

from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.layout import MODEL_FILES
from snaketune.core.precisions import files_read, is_package
from snaketune.inference.decoding import Backend


def prove(model: Path) -> None:
    """Raise a UserError if a file that ``load`` reads isn't what the model's manifest says."""
    used = files_read(is_package(model)) if model.suffix == ".onnx" else MODEL_FILES
    manifest.prove(model.with_name("manifest.json"), *used)


def load(
    model: Path,
    prefix: Path | None,
    threads: int,
    device: str = "auto",
    precision: str = "fp32",
    adapter: Path | None = None,
) -> Backend:
    """Load a genai package, another .onnx file, or else weights for torch; only the chosen runtime is imported.

    ``adapter`` is an exported one that a switchable base runs with, or one that peft saved, for torch.

    ``device`` (auto, cpu or cuda) and ``precision`` (fp32, bf16 or fp16) are torch's.

    Raises:
        UserError: ``device`` is cuda and torch sees no GPU, or the chosen runtime can't run the model.
    """
    if adapter and model.suffix == ".onnx":
        from snaketune.inference.adapter_backend import adapter_backend

        switched = adapter_backend(model, threads)
        switched.load(adapter)
        switched.switch(adapter)
        return switched
    if is_package(model):
        from snaketune.inference.genai_backend import GenaiBackend

        if prefix:
            raise UserError(f"{model}: onnxruntime-genai can't start from a prefix: evaluate it without --prefix")
        return GenaiBackend(model, threads)
    if model.suffix == ".onnx":
        from snaketune.inference.onnx_backend import OnnxBackend

        return OnnxBackend(model, threads, prefix)
    import torch

    from snaketune.inference.torch_backend import TorchBackend
    from snaketune.training.base_model import load_base
    from snaketune.training.memory import limit_threads

    limit_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "`evaluation.device` is cuda, but torch sees no GPU here: set it to auto or cpu, or run on a machine with one"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: torch.nn.Module = load_base(model.parent, precision)
    if adapter:
        from peft import PeftModel

        manifest.prove(adapter.parents[1] / "manifest.json")
        loaded = PeftModel.from_pretrained(loaded, adapter.parent)
    return TorchBackend(loaded.to(device), prefix)
