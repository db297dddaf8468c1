"""Check an adapter that was trained elsewhere, and write it with the files of a local run."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.core.errors import UserError
from snaketune.data.tokens import read_rows
from snaketune.training.adapters import load_adapter
from snaketune.training.loss import mean_loss
from snaketune.training.memory import limit_threads

Weights = dict[str, torch.Tensor]


def check_configuration(configuration: dict[str, Any], recipe: dict[str, Any], where: Path) -> None:
    """Raise a UserError unless adapter_config.json matches the run's parameters."""
    wanted = {key: recipe["options"][key] for key in ("r", "lora_alpha", "use_dora", "use_rslora")}
    wanted |= {"peft_type": "LORA", "target_modules": sorted(recipe["options"]["target_modules"])}
    found = configuration | {"target_modules": sorted(configuration.get("target_modules") or [])}
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UserError(
                f"{where}: {key} is {found.get(key)!r}, but this run asked for {value!r}: it is another run's adapter"
            )
    base = str(configuration.get("base_model_name_or_path") or "")
    # The operator's image refers to the base by a path, which doesn't identify the model.
    if recipe["hub"] and base and not base.startswith("/") and base.lower() != recipe["hub"].lower():
        raise UserError(f"{where}: its base is {base}, this run's is {recipe['hub']}")


def check_weights(weights: Weights, base: dict[str, tuple[int, int]], options: dict[str, Any], where: Path) -> None:
    """Raise a UserError unless the adapter has exactly the layers and widths of its base model.

    Args:
        base: shape (outputs, inputs) of every matrix of the base, by the name of its module.
    """
    rank = options["r"]
    expected: dict[str, tuple[int, ...]] = {}
    for module, (out, into) in base.items():
        if module.rsplit(".", 1)[-1] in options["target_modules"]:
            stem = f"base_model.model.{module}"
            expected |= {f"{stem}.lora_A": (rank, into), f"{stem}.lora_B": (out, rank)}
            if options["use_dora"]:
                expected[f"{stem}.lora_magnitude_vector"] = (out,)
    # Releases of peft differ in the name and the dimensions of a magnitude.
    found = {
        name.removesuffix(".weight"): tuple(tensor.flatten().shape if "magnitude" in name else tensor.shape)
        for name, tensor in weights.items()
    }
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{where}: {name} is {found.get(name, 'missing')}, but {expected.get(name, 'missing')} in an adapter of this base: it was trained on another base"
            )
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{where}: {name} contains values that aren't finite: lower learning_rate")


def curve(state: dict[str, Any], tokens_of_epoch: int) -> list[dict[str, Any]]:
    """Return the steps of a trainer's log; its loss covers whole conversations."""
    return [
        {key: entry[key] for key in ("step", "loss", "learning_rate")}
        | {"tokens": round(entry.get("num_tokens") or entry["epoch"] * tokens_of_epoch)}
        for entry in state["log_history"]
        if "loss" in entry
    ]


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "options, base_precision, hub, threads",
        "--base-directory --tokens-directory --output-directory",
        tuned_directory="adapter, trainer_state.json, status.json",
    ).parse_args()
    recipe, tuned, out = arguments.recipe, arguments.tuned_directory, arguments.output_directory

    limit_threads(recipe["threads"])
    inputs = [arguments.base_directory / "manifest.json", arguments.tokens_directory / "manifest.json"]
    for path in inputs:
        manifest.prove(path)
    file = tuned / layout.ADAPTER_FILES[0]
    try:
        weights = load_file(file)
        configuration, state = (
            files.read_json(tuned / name) for name in (layout.ADAPTER_FILES[1], "trainer_state.json")
        )
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{tuned}: incomplete ({error}); fetch it again") from None
    check_configuration(configuration, recipe, tuned / layout.ADAPTER_FILES[1])
    with safe_open(arguments.base_directory / "model.safetensors", framework="pt") as base:
        shapes = {name.removesuffix(".weight"): base.get_slice(name).get_shape() for name in base.keys()}  # noqa: SIM118
    matrices = {module: (shape[0], shape[1]) for module, shape in shapes.items() if len(shape) == 2}
    check_weights(weights, matrices, recipe["options"], file)

    rows, validation = (read_rows(arguments.tokens_directory / f"{one}.safetensors") for one in ("train", "validation"))
    steps = curve(state, sum(len(ids) for ids in rows.ids))
    if not steps:
        raise UserError(f"{tuned / 'trainer_state.json'}: log_history has no loss")
    model = load_adapter(arguments.base_directory, recipe["base_precision"], tuned)
    pad = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    # The only loss that is comparable with other techniques: over completion tokens, measured here.
    steps[-1]["validation_loss"] = mean_loss(model, validation, pad, model.device)
    _, total = model.get_nb_trainable_parameters()

    status = files.read_json(tuned / "status.json")
    seconds, tokens = status["seconds"], steps[-1]["tokens"]
    with files.written_together(out / "adapter") as aside:
        for name in layout.ADAPTER_FILES:
            shutil.copyfile(tuned / name, aside / name)
    files.write_jsonl(out / "train.jsonl", steps)
    files.write_json(
        out / "resources.json",
        {
            "seconds": seconds,
            # Not reported by the operator.
            **dict.fromkeys(("cpu_seconds_of_rank_0", "threads_per_rank", "peak_memory_bytes")),
            "train_tokens": tokens,
            "tokens_per_second": tokens / seconds if seconds else None,
            "trainable_parameters": sum(tensor.numel() for tensor in weights.values()),
            "total_parameters": total,
            "world_size": status["gpus"],
            "ranks": [],
            "hardware": {
                **dict.fromkeys(("cores", "memory_bytes")),
                "processor": status["instance_type"] or "KAITO",
                "gpu": True,
            },
        },
    )
    kept = [out / "adapter" / name for name in layout.ADAPTER_FILES]
    manifest.record(out, {**recipe, "workspace": status["workspace"]}, [*inputs, tuned.parent / "manifest.json"], kept)


if __name__ == "__main__":
    errors.run(main)
