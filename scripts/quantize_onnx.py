"""Quantize an fp32 ONNX model with ONNX Runtime: fp16, int8 (dynamic or static), or weights only, to 8 or 4 bits."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.export import auto, calibration, fp16, int4, int8, onnx_files
from snaketune.export.graphs import check_known

Rows = list[np.ndarray]


def quantize_dynamic_int8(source: Path, options: dict[str, Any], _: Rows) -> onnx.ModelProto:
    """Quantize to 8-bit weights, and activations at run time; 7 bits with a scale for each output, as in int8."""
    if options["outliers_in_blocks"] and "MatMul" in options["op_types"]:
        onnx_files.save(int8.wide_inputs_in_blocks(onnx.load(source)), source.parent)
    made = source.with_name("quantized.onnx")
    quantize_dynamic(
        source,
        made,
        op_types_to_quantize=options["op_types"],
        weight_type=QuantType.QInt8,
        per_channel=options["per_channel"],
        reduce_range=options["per_channel"],
        use_external_data_format=True,
    )
    return onnx.load(made)


@contextmanager
def temporary_files_in(directory: Path) -> Iterator[None]:
    """Let ONNX Runtime write copies of the model to ``directory``: /tmp may be a small disk."""
    before, tempfile.tempdir = tempfile.tempdir, str(directory)
    try:
        yield
    finally:
        tempfile.tempdir = before


METHODS: dict[str, Callable[[Path, dict[str, Any], Rows], onnx.ModelProto]] = {
    "float16": lambda source, options, rows: fp16.convert(source),
    "dynamic-int8": quantize_dynamic_int8,
    "static-int8": int8.quantize,
    "weight-only-int4": int4.quantize,
    "weight-only-int8": lambda source, options, rows: int4.quantize(source, options, rows, bits=8),
}


def main() -> None:
    parser = cli.job_parser(__doc__, "method, options", "--output-directory", model="model.onnx at fp32")
    parser.add_argument(
        "--calibration-directory",
        type=Path,
        nargs="?",
        help="tokens of the training and validation split, for static-int8, gptq and auto; other methods read none",
    )
    arguments = parser.parse_args()
    recipe, source, out = arguments.recipe, arguments.model, arguments.output_directory
    onnxruntime.disable_telemetry_events()
    logging.disable(logging.WARNING)  # ONNX Runtime's quantizers report every node

    weights = source.with_name("model.onnx_data").stat().st_size
    files.need_space(out, 3 * weights, "quantization")
    proof = source.with_name("manifest.json")
    manifest.prove(proof)
    rows, rows_proof = calibration.proven_rows(recipe, arguments.calibration_directory)
    validation: auto.Answers = []
    if recipe["method"] == "auto":
        validation = auto.validation_rows(arguments.calibration_directory, recipe["options"]["validation_rows"])
    with files.scratch(out / ".quantize") as directory, temporary_files_in(directory):
        for name in layout.ONNX_FILES[:2]:
            shutil.copyfile(source.with_name(name), directory / name)
        if recipe["method"] != "float16":
            check_known(onnx.load(directory / source.name, load_external_data=False).graph)
        if recipe["method"] == "auto":
            made, found = auto.quantize(directory / source.name, recipe["options"], rows, validation)
            recipe = recipe | {"chosen": found}
        else:
            made = METHODS[recipe["method"]](directory / source.name, recipe["options"], rows)
        onnx_files.save(made, out)
    for name in layout.MODEL_FILES[1:]:
        shutil.copyfile(source.parent / name, out / name)
    manifest.record(out, recipe, [proof, *rows_proof], [out / name for name in layout.ONNX_FILES])
    print(f"{out}: {(out / 'model.onnx_data').stat().st_size / weights:.2f} of the fp32 bytes")


if __name__ == "__main__":
    errors.run(main)
