"""Write a trained adapter as one small file that ONNX Runtime can switch to on a switchable base.

An adapter trained on a base that was quantized only for training (nf4, int8) is rejected: no switchable base has such weights.
"""

from onnxruntime import AdapterFormat, OrtValue

from snaketune.core import cli, errors, files, manifest
from snaketune.core.layout import ADAPTER_FILE, INPUTS_FILE
from snaketune.core.precisions import exported
from snaketune.export.runtime_adapters.files import check_base, check_taken
from snaketune.export.runtime_adapters.tensors import Trained


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        None,
        "--output-directory",
        base_directory="the model the adapter was trained on",
        switchable_directory="the base that will load it",
        adapter_directory="adapter/ of a run, as peft saved it",
    ).parse_args()
    base, switchable, adapter = arguments.base_directory, arguments.switchable_directory, arguments.adapter_directory
    out, trained = arguments.output_directory, arguments.adapter_directory.parent / "manifest.json"

    inputs = [base / "manifest.json", switchable / "manifest.json", trained]
    check_base(base, *inputs[1:])
    precision = manifest.read(trained)["recipe"]["base_precision"]
    if precision != "fp32" and not exported(precision):
        raise errors.UserError(
            f"{adapter} was trained on the {precision} form of {base}, which no switchable base has the weights of: export its merged model instead"
        )
    manifest.prove(inputs[0], "model.safetensors")
    manifest.prove(inputs[1], INPUTS_FILE)
    manifest.prove(trained)
    tensors = Trained(base, adapter).inputs()
    check_taken(tensors, switchable)
    content = AdapterFormat()
    content.set_adapter_version(1)
    content.set_model_version(1)
    # Sorted by name, because the order decides the file's bytes.
    content.set_parameters({name: OrtValue.ortvalue_from_numpy(tensor.numpy()) for name, tensor in tensors.items()})
    with files.written_whole(out / ADAPTER_FILE) as aside:
        content.export_adapter(str(aside))
    manifest.record(out, arguments.recipe, inputs, [out / ADAPTER_FILE])
    print(f"{out / ADAPTER_FILE}: {len(tensors)} tensors, {(out / ADAPTER_FILE).stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    errors.run(main)
