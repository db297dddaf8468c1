"""Merge an adapter into its base as an ordinary fp32 model, and write the unmerged probe logits for the parity check.

A prefix can't be merged into weights: the run's model is its base, which starts from the keys and values written here.
"""

import shutil

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.data.tokens import read_rows
from snaketune.export.runtime_adapters.files import check_base
from snaketune.inference.probe import write_probe
from snaketune.inference.torch_backend import TorchBackend
from snaketune.training.adapters import prefix_of
from snaketune.training.memory import limit_threads, return_freed_memory
from snaketune.training.prefix import write_prefix
from snaketune.training.streamed_merge import load_unmerged, save_merged


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "base_precision, threads, stream_merge (where false), probe",
        "--base-directory --adapter-directory --tokens-directory --output-directory",
        logits="probe of base and adapter before merging, computed by peft",
    ).parse_args()
    recipe, base, adapter = arguments.recipe, arguments.base_directory, arguments.adapter_directory
    out = arguments.output_directory

    limit_threads(recipe["threads"])
    return_freed_memory()
    check_base(base, adapter.parent / "manifest.json")
    inputs = [base / "manifest.json", adapter.parent / "manifest.json"]
    for path in [*inputs, arguments.tokens_directory / "manifest.json"]:
        manifest.prove(path)
    rows = read_rows(arguments.tokens_directory / "test.safetensors")
    streams = recipe.get("stream_merge", True)
    unmerged = load_unmerged(base, recipe["base_precision"], adapter, streams)
    write_probe(arguments.logits, TorchBackend(unmerged), rows, recipe["probe"])
    if unmerged.active_peft_config.is_prompt_learning:
        write_prefix(out / layout.PREFIX_FILE, prefix_of(unmerged))
        manifest.record(out, recipe, inputs, [out / layout.PREFIX_FILE])
        return
    del unmerged
    files.need_space(out, (base / "model.safetensors").stat().st_size, "merging")
    with files.written_together(out) as aside:
        save_merged(base, recipe["base_precision"], adapter, aside, streams)
        for name in layout.MODEL_FILES[2:]:
            shutil.copyfile(base / name, aside / name)
    manifest.record(out, recipe, inputs, [out / name for name in layout.MODEL_FILES])


if __name__ == "__main__":
    errors.run(main)
