"""What runs a model, by the files beside it: torch, ONNX Runtime or onnxruntime-genai."""

from pathlib import Path

from snaketune import manifest
from snaketune.errors import UserError
from snaketune.layout import MODEL_FILES
from snaketune.precisions import files_read
from snaketune.scoring import Backend


def is_package(model: Path) -> bool:
    """Whether onnxruntime-genai built what is beside ``model``."""
    return model.with_name("genai_config.json").is_file()


def prove(model: Path) -> None:
    """Prove what ``load`` reads of a model against its manifest.

    Raises:
        UserError: a file is missing or its content isn't what the manifest says.
    """
    used = files_read(is_package(model)) if model.suffix == ".onnx" else MODEL_FILES
    manifest.prove(model.with_name("manifest.json"), *used)


def load(model: Path, prefix: Path | None, threads: int) -> Backend:
    """onnxruntime-genai for its package, ONNX Runtime for another .onnx file, else torch; each imports only what it needs."""
    if is_package(model):
        from snaketune.genai_backend import GenaiBackend

        if prefix:
            raise UserError(f"{model}: onnxruntime-genai can't start from a prefix: evaluate it without --prefix")
        return GenaiBackend(model, threads)
    if model.suffix == ".onnx":
        from snaketune.onnx_backend import OnnxBackend

        return OnnxBackend(model, threads, prefix)
    from snaketune.adapters import load_base
    from snaketune.measure import limit_threads
    from snaketune.torch_backend import TorchBackend

    limit_threads(threads)
    return TorchBackend(load_base(model.parent, "fp32"), prefix)
