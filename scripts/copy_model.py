"""Copy a run's trained weights, with the base's tokenizer, to one plain transformers model."""

import argparse
import shutil
from pathlib import Path

from snaketune.core import cli, errors, files, layout, manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_recipe(parser)
    parser.add_argument(
        "--base-directory", type=Path, required=True, help="the model that was trained, for its tokenizer"
    )
    parser.add_argument(
        "--trained-directory", type=Path, required=True, help="weights and config.json: model/ of a run"
    )
    parser.add_argument("--output-directory", type=Path, required=True)
    arguments = parser.parse_args()
    base, trained, out = arguments.base_directory, arguments.trained_directory, arguments.output_directory

    files.need_space(out, (trained / "model.safetensors").stat().st_size, "the plain model")
    inputs = [base / "manifest.json", trained.parent / "manifest.json"]
    for path in inputs:
        manifest.prove(path)
    with files.written_together(out) as aside:
        for name in layout.MODEL_FILES:
            source = trained if name in layout.MODEL_FILES[:2] else base
            shutil.copyfile(source / name, aside / name)
    manifest.record(out, arguments.recipe, inputs, [out / name for name in layout.MODEL_FILES])


if __name__ == "__main__":
    errors.run(main)
