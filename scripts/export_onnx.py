"""Export a merged transformers model to ONNX fp32 with optimum: model.onnx and model.onnx_data.

Runs in envs/export, whose older transformers doesn't read all that a newer one saves: the
configuration is rewritten for it, and the parity gate proves the result.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import onnx
from optimum.exporters.onnx import main_export

from snaketune import errors, files, layout, manifest, onnx_files


def older_scaling(rope: dict[str, Any]) -> dict[str, Any]:
    """The `rope_scaling` of transformers 4; Phi-3's long-rope must have just these three keys."""
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "longrope":
        return {"type": kind, "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    return {**rope, "type": kind}


def with_older_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A model configuration with the rope and dtype keys that transformers 4 reads.

    transformers 5 saves `rope_parameters`; version 4 ignores it and would fall back to the
    default rope without a word.
    """
    older = dict(config)
    rope = dict(older.get("rope_parameters") or {})
    if rope:
        older["rope_theta"] = rope.pop("rope_theta", config.get("rope_theta", 10000.0))
        if "partial_rotary_factor" in rope:
            older["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
        older["rope_scaling"] = older_scaling(rope) if scaled else None
        if "original_max_position_embeddings" in rope:
            older["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    if "dtype" in older:
        older["torch_dtype"] = older["dtype"]
    return older


def export(model: Path, out: Path) -> None:
    """Write ``out/model.onnx`` and ``out/model.onnx_data``, cache of past keys and values included."""
    with files.scratch(out / ".export") as directory:
        older, exported = directory / "model", directory / "onnx"
        older.mkdir()
        for path in model.iterdir():
            if path.suffix == ".safetensors":
                (older / path.name).symlink_to(path.absolute())
        files.write_json(older / "config.json", with_older_keys(files.read_json(model / "config.json")))
        shutil.copyfile(model / "generation_config.json", older / "generation_config.json")
        main_export(
            str(older),
            exported,
            task="text-generation-with-past",
            framework="pt",
            do_validation=False,
            trust_remote_code=False,
            local_files_only=True,
        )
        onnx_files.save(onnx.load(exported / "model.onnx"), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument("--model-directory", type=Path, required=True, help="merged/ of the run")
    parser.add_argument("--output-directory", type=Path, required=True)
    arguments = parser.parse_args()
    model, out = arguments.model_directory, arguments.output_directory

    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    files.need_space(out, 3 * weights, "the ONNX export")
    manifest.prove(model / "manifest.json")
    export(model, out)
    for name in layout.MODEL_FILES[1:]:
        shutil.copyfile(model / name, out / name)
    manifest.record(out, arguments.recipe, [model / "manifest.json"], [out / name for name in layout.ONNX_FILES])
    print(f"{out}: {(out / 'model.onnx_data').stat().st_size / 2**20:.1f} MiB of weights")


if __name__ == "__main__":
    errors.run(main)
