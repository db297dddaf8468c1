"""Write a trained prefix as plain keys and values, and the probe logits of base and prefix for the parity check.

A prefix can't be merged into weights: the run's model is its base, which starts from these.
"""

from snaketune.core import cli, errors, manifest
from snaketune.core.layout import PREFIX_FILE
from snaketune.data.tokens import read_rows
from snaketune.inference.decoding import write_probe
from snaketune.inference.torch_backend import TorchBackend
from snaketune.training.adapters import load_adapter, prefix_of
from snaketune.training.memory import limit_threads
from snaketune.training.prefix import write_prefix


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "base_precision, threads, probe",
        "--base-directory --adapter-directory --tokens-directory --output-directory",
        logits="probe of base and prefix, computed by peft",
    ).parse_args()
    recipe, base, adapter = arguments.recipe, arguments.base_directory, arguments.adapter_directory
    out = arguments.output_directory

    limit_threads(recipe["threads"])
    inputs = [base / "manifest.json", adapter.parent / "manifest.json"]
    for path in [*inputs, arguments.tokens_directory / "manifest.json"]:
        manifest.prove(path)
    model = load_adapter(base, recipe["base_precision"], adapter)
    rows = read_rows(arguments.tokens_directory / "test.safetensors")
    write_probe(arguments.logits, TorchBackend(model), rows, recipe["probe"])
    write_prefix(out / PREFIX_FILE, prefix_of(model))
    manifest.record(out, recipe, inputs, [out / PREFIX_FILE])


if __name__ == "__main__":
    errors.run(main)
