"""Make an ONNX model of the base accept adapters at run time, without changing its weights.

The model is the base's fp32 export, or a weight-only export whose weights the base has.
"""

import shutil

import onnx

from snaketune.core import cli, errors, files, manifest
from snaketune.core.layout import INPUTS_FILE
from snaketune.export import onnx_files
from snaketune.export.runtime_adapters.files import check_base
from snaketune.export.runtime_adapters.graph import make_switchable


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "parts (the inputs of each target module)",
        "--output-directory",
        base_directory="what the adapters were trained on",
        model_directory="its fp32 export, or the export that the base has the numbers of",
    ).parse_args()
    base, model, out = arguments.base_directory, arguments.model_directory, arguments.output_directory

    files.need_space(out, (model / "model.onnx_data").stat().st_size, "the switchable base")
    manifest.prove(model / "manifest.json")
    if any(name.endswith("/model.onnx") for name in manifest.read(base / "manifest.json")["inputs"]):
        check_base(model, base / "manifest.json")
    else:
        check_base(base, model / "manifest.json")
    graph = onnx.load(model / "model.onnx")
    shapes = make_switchable(graph, arguments.recipe["parts"])
    onnx_files.save(graph, out)
    files.write_json(out / INPUTS_FILE, shapes)
    names = manifest.read(model / "manifest.json")["files"]
    for name in names:
        if name not in ("model.onnx", "model.onnx_data"):
            shutil.copyfile(model / name, out / name)
    inputs = [base / "manifest.json", model / "manifest.json"]
    manifest.record(out, arguments.recipe, inputs, [out / name for name in (*names, INPUTS_FILE)])
    print(f"{out}: {len(shapes)} inputs for adapters, {(out / 'model.onnx_data').stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    errors.run(main)
