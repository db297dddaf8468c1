"""Merge an adapter into its base as one plain fp32 model, and write the unmerged probe logits for the parity check."""

import shutil

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.data.tokens import read_rows
from snaketune.export.runtime_adapters.files import check_base
from snaketune.inference.decoding import write_probe
from snaketune.inference.torch_backend import TorchBackend
from snaketune.training.adapters import load_adapter, merge
from snaketune.training.memory import limit_threads


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "base_precision, threads, probe",
        "--base-directory --adapter-directory --tokens-directory --output-directory",
        logits="probe of base and adapter before merging",
    ).parse_args()
    recipe, base, adapter = arguments.recipe, arguments.base_directory, arguments.adapter_directory
    out = arguments.output_directory

    files.need_space(out, (base / "model.safetensors").stat().st_size, "merging")
    limit_threads(recipe["threads"])
    check_base(base, adapter.parent / "manifest.json")
    inputs = [base / "manifest.json", adapter.parent / "manifest.json"]
    for path in [*inputs, arguments.tokens_directory / "manifest.json"]:
        manifest.prove(path)
    rows = read_rows(arguments.tokens_directory / "test.safetensors")
    unmerged = TorchBackend(load_adapter(base, recipe["base_precision"], adapter))
    write_probe(arguments.logits, unmerged, rows, recipe["probe"])
    with files.written_together(out) as aside:
        merge(base, recipe["base_precision"], adapter).save_pretrained(aside, max_shard_size="1TB")
        for name in layout.MODEL_FILES[2:]:
            shutil.copyfile(base / name, aside / name)
    manifest.record(out, recipe, inputs, [out / name for name in layout.MODEL_FILES])


if __name__ == "__main__":
    errors.run(main)
