"""Export a merged transformers model to ONNX fp32 with optimum: model.onnx and model.onnx_data.

Runs in envs/export, whose older transformers can't read everything that a newer one saves: the
configuration is rewritten for it, and the parity check verifies the result.
"""

import os
import shutil
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import onnx
from optimum.exporters.onnx import main_export

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.export import onnx_files
from snaketune.export.legacy_config import link_model, with_older_keys


def export(model: Path, out: Path) -> None:
    """Write ``out/model.onnx`` and ``out/model.onnx_data``; a UserError if optimum or transformers don't know the model."""
    config = with_older_keys(files.read_json(model / "config.json"))
    with files.scratch(out / ".export") as directory:
        older, exported = directory / "model", directory / "onnx"
        link_model(model, older, config)
        try:
            main_export(
                str(older),
                exported,
                task="text-generation-with-past",
                framework="pt",
                do_validation=False,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (KeyError, ValueError) as error:
            architecture = ", ".join(config.get("architectures") or ["(none)"])
            reason = str(error).strip().partition("\n")[0].replace(str(older), str(model))
            raise errors.UserError(
                f"{model / 'config.json'}: optimum can't export `architectures` {architecture}: {reason.rstrip('.')}. Choose another model, or leave `precisions` of the experiment empty"
            ) from error
        onnx_files.save(onnx.load(exported / "model.onnx"), out)


def main() -> None:
    arguments = cli.job_parser(__doc__, None, "--output-directory", model_directory="merged/ of the run").parse_args()
    model, out = arguments.model_directory, arguments.output_directory

    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    files.need_space(out, 3 * weights, "the ONNX export")
    manifest.prove(model / "manifest.json")
    export(model, out)
    for name in layout.MODEL_FILES[1:]:
        shutil.copyfile(model / name, out / name)
    manifest.record(out, arguments.recipe, [model / "manifest.json"], [out / name for name in layout.ONNX_FILES])
    print(f"{out}: {(out / 'model.onnx_data').stat().st_size / 2**20:.1f} MiB of weights")


if __name__ == "__main__":
    errors.run(main)
