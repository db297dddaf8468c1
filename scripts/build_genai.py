"""Build a merged transformers model as onnxruntime-genai's own ONNX graph: fp32, int8 or int4.

Runs in envs/export, whose older transformers can't read everything that a newer one saves: the
configuration is rewritten for it, and the parity check verifies the result.
"""

import contextlib
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1")

import numpy as np
import onnx
import onnxruntime_genai
import transformers

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.export import auto, calibration, genai_graph, onnx_files
from snaketune.export.legacy_config import link_model, with_older_keys


def extra_options(options: dict[str, Any]) -> list[str]:
    """Return the options of a genai precision as the builder's KEY=VALUE."""
    # Scoring several answers to one prompt rewinds the cache; one that keeps only the window can't be rewound.
    found: dict[str, Any] = {"hf_token": "false", "hf_remote": "false", "windowed_kv_cache": "false"}
    # One larger product instead of two: threads synchronize less often.
    found["fuse_mlp_gate_up"] = "true"
    if options["weights"] != "fp32":
        found |= {"algo_config": options["algorithm"], "is_symmetric": str(options["symmetric"]).lower()}
        found |= {key: options[key] for key in ("block_size", "accuracy_level")}
        found["op_types_to_quantize"] = "MatMul/Gather" if options["quantize_embeddings"] else "MatMul"
        if not options["quantize_embeddings"]:
            found["shared_embeddings"] = "false"
        if options["mixed_precision"]:
            found["matmul_mixed_precision"] = options["mixed_precision"]
    return [f"{key}={value}" for key, value in found.items()]


def adjust(config: Any) -> None:
    """Change in a configuration what the builder would overlook or fail on."""
    # transformers 4 has None for no scaling, and the builder would iterate over it.
    scaling = getattr(config, "rope_scaling", None) or {}
    kind = scaling.get("rope_type")
    # For Llama it would drop linear scaling; dynamic scaling begins beyond the positions that a package has.
    if kind in ("linear", "dynamic"):
        config.rope_position_scale = 1 / scaling["factor"] if kind == "linear" else 1
        config.rope_parameters = scaling = {"rope_type": "default"}
    config.rope_scaling = scaling
    # Phi-2's layer norms aren't of the root mean square.
    if hasattr(config, "layer_norm_eps"):
        config.rms_norm_eps = config.layer_norm_eps
    # Without layer types, as in Phi-3's and Mistral's configurations, it would drop the attention window.
    if getattr(config, "sliding_window", None) and not getattr(config, "layer_types", None):
        config.layer_types = ["sliding_attention"] * config.num_hidden_layers


def run_builder(model: Path, out: Path, options: dict[str, Any]) -> None:
    """Write graph, weights and genai_config.json into ``out``, or raise one of many kinds of Exception."""
    # The builder imports these classes to distinguish families; in this environment they are too new to exist.
    for newer in ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"):
        if not hasattr(transformers, newer):
            setattr(transformers, newer, None)
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    where = (str(model), str(out), options["weights"], "cpu", str(out / "cache"))
    logging.disable(logging.ERROR)
    # For a block of zeros the quantizer divides by zero, then uses zero.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        parsed = parse_extra_options("", *where, extra_options(options))
        adjust(parsed["hf_details"]["hf_config"])
        create_model("", *where, **parsed)
    try_token(out)


def try_token(package: Path) -> None:
    """Let the runtime read one token: only then does it report what it can't compute.

    Some combinations of options give a graph that lacks a tensor (for example of a tied head, at 8
    bits with `default`), and its attention needs a head size that is a multiple of 16.
    """
    onnxruntime_genai.disable_telemetry_events()
    config = onnxruntime_genai.Config(str(package))
    # ONNX Runtime would print its own lines before the message.
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"log_severity_level": 4}}}}))
    model = onnxruntime_genai.Model(config)
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=2, past_present_share_buffer=False)
    onnxruntime_genai.Generator(model, parameters).append_tokens(np.zeros(1, np.int32))


def build(
    model: Path, out: Path, options: dict[str, Any], choose: Callable[[Path], onnx.ModelProto] | None = None
) -> None:
    """Write ``out/model.onnx``, ``out/model.onnx_data`` and ``out/genai_config.json``; a UserError if it can't be.

    Args:
        choose: quantizes the graph that was built.
    """
    tokenizer = files.read_json(model / "tokenizer_config.json")
    if not tokenizer.get("chat_template"):
        raise errors.UserError(
            f"{model / 'tokenizer_config.json'}: no `chat_template`, which onnxruntime-genai needs: choose a model whose tokenizer has one, or no genai precision"
        )
    with files.scratch(out / ".export") as directory:
        older, built = directory / "model", directory / "genai"
        config = with_older_keys(files.read_json(model / "config.json"))
        link_model(model, older, config)
        shutil.copyfile(model / "tokenizer.json", older / "tokenizer.json")
        # transformers 5 names classes that version 4 lacks; both read tokenizer.json.
        files.write_json(older / "tokenizer_config.json", {**tokenizer, "tokenizer_class": "PreTrainedTokenizerFast"})
        try:
            run_builder(older, built, options)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].replace(str(older), str(model))
            architecture = ", ".join(config.get("architectures") or ["(none)"])
            raise errors.UserError(
                f"{model / 'config.json'}: onnxruntime-genai's builder can't build `architectures` {architecture} at {options['weights']}: {reason.rstrip('.')}. Choose another model, other options, or no genai precision"
            ) from error
        if choose:
            genai_graph.make_known(built)
            onnx_files.save(choose(built / "model.onnx"), built)
            try_token(built)
        graph = onnx.load(built / "model.onnx")
        # The builder adds the commit of whatever repository its environment is in: bytes would differ with ours.
        graph.producer_version = graph.producer_version.partition("+")[0]
        onnx_files.save(graph, out)
        settings = files.read_json(built / "genai_config.json")
        # The builder would add to the end tokens; and the package answers as it was evaluated, likeliest token first.
        settings["model"]["eos_token_id"] = files.read_json(model / "generation_config.json")["eos_token_id"]
        settings["search"]["do_sample"] = False
        if options.get("spin_microseconds"):
            session = settings["model"]["decoder"]["session_options"]
            session["session.intra_op.spin_duration_us"] = str(options["spin_microseconds"])
        files.write_json(out / "genai_config.json", settings)


def main() -> None:
    parser = cli.job_parser(__doc__, "method, options", "--output-directory", model_directory="merged/ of the run")
    parser.add_argument(
        "--calibration-directory",
        type=Path,
        nargs="?",
        help="tokens of the training and validation split, for genai-auto",
    )
    arguments = parser.parse_args()
    model, out, recipe = arguments.model_directory, arguments.output_directory, arguments.recipe

    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    # Bits are chosen on the fp32 graph, which is written twice.
    files.need_space(out, (4 if recipe["method"] == "genai-auto" else 2) * weights, "the genai export")
    manifest.prove(model / "manifest.json")
    rows, rows_proof = calibration.proven_rows(recipe, arguments.calibration_directory)
    chosen: dict[str, Any] = {}
    if recipe["method"] == "genai-auto":
        validation = auto.validation_rows(arguments.calibration_directory, recipe["options"]["validation_rows"])

        def choose(source: Path) -> onnx.ModelProto:
            made, chosen["chosen"] = auto.quantize(source, recipe["options"], rows, validation)
            return made

        build(model, out, {"weights": "fp32"}, choose)
    else:
        build(model, out, recipe["options"])
    for name in layout.TOKENIZER_FILES:
        shutil.copyfile(model / name, out / name)
    manifest.record(
        out, recipe | chosen, [model / "manifest.json", *rows_proof], [out / name for name in layout.GENAI_FILES]
    )
    print(f"{out}: {(out / 'model.onnx_data').stat().st_size / weights:.3f} of the merged bytes")


if __name__ == "__main__":
    errors.run(main)
