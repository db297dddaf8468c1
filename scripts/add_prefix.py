"""Combine a trained prefix with an ONNX model of its base, so that ONNX Runtime can start from it."""

import shutil

from snaketune.core import cli, errors, files, manifest
from snaketune.core.layout import ONNX_FILES, PREFIX_FILE


def main() -> None:
    arguments = cli.job_parser(
        __doc__, None, "--prefix-directory --output-directory", model_directory="onnx/{precision} of the untuned model"
    ).parse_args()
    model, prefix, out = arguments.model_directory, arguments.prefix_directory, arguments.output_directory

    files.need_space(out, (model / "model.onnx_data").stat().st_size, "the ONNX model with its prefix")
    inputs = [model / "manifest.json", prefix / "manifest.json"]
    for path in inputs:
        manifest.prove(path)
    # Copied: a hard link would share its modification time with the original, and Snakemake compares times.
    with files.written_together(out) as aside:
        for source in [*(model / name for name in ONNX_FILES), prefix / PREFIX_FILE]:
            shutil.copyfile(source, aside / source.name)
    manifest.record(out, arguments.recipe, inputs, [out / name for name in (*ONNX_FILES, PREFIX_FILE)])


if __name__ == "__main__":
    errors.run(main)
