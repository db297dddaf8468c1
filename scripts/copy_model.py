"""Copy a run's trained weights, with the base's tokenizer, to an ordinary transformers model."""

import shutil

from snaketune.core import cli, errors, files, layout, manifest


def main() -> None:
    arguments = cli.job_parser(
        __doc__, None, "--output-directory", base_directory="for its tokenizer", trained_directory="model/ of a run"
    ).parse_args()
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
