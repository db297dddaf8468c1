"""Quantize an fp32 ONNX model with ONNX Runtime: int8 (dynamic) or int4 (weight-only)."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from snaketune import errors, files, layout, manifest, onnx_files


def quantize_int8(source: Path, target: Path, options: dict[str, Any]) -> None:
    """8-bit weights, activations quantized at run time."""
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=options["op_types"],
        weight_type=QuantType.QInt8,
        per_channel=options["per_channel"],
        use_external_data_format=True,
    )


def quantize_int4(source: Path, target: Path, options: dict[str, Any]) -> None:
    """4-bit weights in blocks; accuracy level 4 lets the kernels compute in int8."""
    config = DefaultWeightOnlyQuantConfig(
        block_size=options["block_size"], is_symmetric=options["symmetric"], accuracy_level=options["accuracy_level"]
    )
    quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=True)


METHODS = {"dynamic-int8": quantize_int8, "weight-only-int4": quantize_int4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument("--model", type=Path, required=True, help="model.onnx at fp32")
    parser.add_argument("--output-directory", type=Path, required=True)
    arguments = parser.parse_args()
    recipe, source, out = arguments.recipe, arguments.model, arguments.output_directory

    weights = source.with_name("model.onnx_data").stat().st_size
    files.need_space(out, 2 * weights, "quantization")
    manifest.prove(source.with_name("manifest.json"))
    with files.scratch(out / ".quantize") as directory:
        # ONNX Runtime writes beside its input: that must not be the parent's directory.
        parent, made = directory / "fp32" / source.name, directory / "quantized" / source.name
        for path in (parent, made):
            path.parent.mkdir()
        for name in layout.ONNX_FILES[:2]:
            shutil.copyfile(source.with_name(name), parent.with_name(name))
        METHODS[recipe["method"]](parent, made, recipe["options"])
        onnx_files.save(onnx.load(made), out)
    for name in layout.MODEL_FILES[1:]:
        shutil.copyfile(source.parent / name, out / name)
    manifest.record(out, recipe, [source.with_name("manifest.json")], [out / name for name in layout.ONNX_FILES])
    print(f"{out}: {(out / 'model.onnx_data').stat().st_size / weights:.2f} of the fp32 bytes")


if __name__ == "__main__":
    errors.run(main)
