"""Write the weights of a weight-only export as an ordinary base model, on which adapters can be trained.

Its manifest identifies the ONNX files by hash. A head that is no longer the embedding table gets separate weights.
"""

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from snaketune.core import cli, errors, files, manifest
from snaketune.core.layout import MODEL_FILES, ONNX_FILES
from snaketune.export.dequantize import Numbers
from snaketune.export.runtime_adapters.files import check_base

HEAD, TABLE = "lm_head", "embed_tokens.weight"
# The share of its norm that a weight may lose by rounding: 4 bits take a tenth, another model's weight is 1.4 off.
MOST_LOST = 0.5


def check_made_of(base: Path, export: Path) -> None:
    """Raise a UserError if an export, or the fp32 export that it was quantized from, wasn't made from the base."""
    named = [Path(name) for name in manifest.read(export)["inputs"] if name.endswith("/manifest.json")]
    fp32 = [path for path in named if path.exists() and "model.onnx" in manifest.read(path)["files"]]
    check_base(base, *(fp32 or [export]))


def weights_of(base: Path, numbers: Numbers, where: Path) -> dict[str, torch.Tensor]:
    """Return every weight of the base in fp32, as the export has it; a UserError if one isn't the base's, rounded."""
    found: dict[str, torch.Tensor] = {}

    def take(path: str, own: torch.Tensor) -> torch.Tensor:
        rounded = numbers.of(path)
        if rounded is None:
            return own
        made = torch.from_numpy(np.ascontiguousarray(rounded[:, : own.shape[1]]))
        if made.shape != own.shape or torch.dist(made, own) > MOST_LOST * own.norm():
            raise errors.UserError(f"{where}: {path} isn't {base}'s, rounded: quantize that base again")
        return made

    with safe_open(base / MODEL_FILES[0], "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            found[name] = take(name.removesuffix(".weight"), tensors.get_tensor(name).float())
        if f"{HEAD}.weight" not in found:
            table = next(name for name in found if name.endswith(TABLE))
            head = take(HEAD, tensors.get_tensor(table).float())
            if not torch.equal(head, found[table]):
                found[f"{HEAD}.weight"] = head
    numbers.check_all_taken()
    return found


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        None,
        "--output-directory",
        base_directory="the untuned model",
        model="model.onnx of its weight-only export",
    ).parse_args()
    base, model, out = arguments.base_directory, arguments.model, arguments.output_directory
    export = model.with_name("manifest.json")

    manifest.prove(base / "manifest.json")
    manifest.prove(export, *ONNX_FILES[:2])
    check_made_of(base, export)
    weights = weights_of(base, Numbers(onnx.load(model).graph), model)
    files.need_space(out, sum(weight.nbytes for weight in weights.values()), "the dequantized base")
    with files.written_together(out) as aside:
        save_file(weights, aside / MODEL_FILES[0], metadata={"format": "pt"})
        for name in MODEL_FILES[1:]:
            shutil.copyfile(base / name, aside / name)
        if f"{HEAD}.weight" in weights:
            config = files.read_json(base / MODEL_FILES[1])
            files.write_json(aside / MODEL_FILES[1], {**config, "tie_word_embeddings": False})
    inputs = [base / "manifest.json", export, *(model.with_name(name) for name in ONNX_FILES[:2])]
    manifest.record(out, arguments.recipe, inputs, [out / name for name in MODEL_FILES])
    print(f"{out}: {len(weights)} weights, as {model} computes with them")


if __name__ == "__main__":
    errors.run(main)
