"""Fine-tune a base model with any technique: an adapter, a base precision and an engine.

Start it directly for one process, or with `launch.py --ranks N` for several ranks or DeepSpeed. An
interrupted run resumes from its last checkpoint in --work; SIGTERM and SIGUSR1 save one first.
"""

import argparse
import math
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any, get_args

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
import torch
from accelerate import Accelerator
from peft.utils.integrations import gather_params_ctx
from transformers.integrations.neftune import activate_neftune

from snaketune.config.trackers import Tracker
from snaketune.core import cli, errors, files, manifest
from snaketune.data.tokens import Rows, read_rows
from snaketune.export.runtime_adapters.files import check_base
from snaketune.training.adapters import PrefixModel, attach, save_adapter, taken_from_base
from snaketune.training.base_model import load_base
from snaketune.training.batches import plan_batches
from snaketune.training.checkpoints import Checkpoints, checkpoint_key, stop_notice
from snaketune.training.engines import accelerator_for, optimizer_for
from snaketune.training.loop import TrainingLoop
from snaketune.training.loss import mean_loss
from snaketune.training.memory import (
    count_elements,
    limit_threads,
    model_state_bytes,
    parameter_count,
    peak_memory,
    return_freed_memory,
)
from snaketune.training.params import VALIDATION_ROWS, VALIDATION_TOKENS, TrainingParams
from snaketune.training.rank_budget import budget_of
from snaketune.training.recomputation import recompute
from snaketune.training.schedule import Plan
from snaketune.training.shared_prompts import obstacle
from snaketune.training.tracking import TRACKING, start, trackers_of


def save(
    accelerator: Accelerator, model: Any, recipe: TrainingParams, taken: dict[str, torch.Tensor], out: Path
) -> list[Path]:
    """Write the adapter or all weights as one safetensors file and return the files."""
    weights = accelerator.get_state_dict(model)
    plain = accelerator.unwrap_model(model)
    directory = out / ("adapter" if recipe["adapter"] else "model")
    # peft computes the saved prefix from its weights, which ZeRO-3 shards over the ranks.
    computed = [p for p in plain.parameters() if p.requires_grad] if isinstance(plain, PrefixModel) else []
    with gather_params_ctx(computed, modifier_rank=None):
        if not accelerator.is_main_process:
            return []
        # DeepSpeed returns a tied weight under each of its names.
        for tied in getattr(plain, "all_tied_weights_keys", {}):
            weights.pop(tied, None)
        with files.written_together(directory) as aside:
            if recipe["adapter"]:
                save_adapter(plain, weights, taken, aside)
            else:
                plain.save_pretrained(aside, state_dict=weights, max_shard_size="1TB")
            names = sorted(path.name for path in aside.iterdir())
    return [directory / name for name in names]


def gather(accelerator: Accelerator, values: dict[str, int]) -> list[dict[str, int]]:
    """Return the values of every rank, in rank order, on every rank."""
    mine = torch.tensor(list(values.values()), dtype=torch.int64, device=accelerator.device).unsqueeze(0)
    return [dict(zip(values, row, strict=True)) for row in accelerator.gather(mine).tolist()]


def inputs_of(arguments: argparse.Namespace) -> list[Path]:
    """Return the manifests that prove what this job reads."""
    return [arguments.base_directory / "manifest.json", arguments.tokens_directory / "manifest.json"]


def plan_of(recipe: TrainingParams, rows: Rows, checkpoint_steps: int) -> Plan:
    """Return the schedule of a job."""
    most = recipe.get("max_steps")
    epochs = math.ceil(most * recipe["batch_rows"] / len(rows)) if most else recipe["epochs"]
    batches = plan_batches(rows, recipe["batch_rows"], epochs, recipe["seed"])
    return Plan(
        batches=batches[: recipe.get("steps", most)],
        micro_batch_rows=recipe["micro_batch_rows"],
        learning_rate=recipe["learning_rate"],
        warmup_share=recipe["warmup_share"],
        max_grad_norm=recipe["max_grad_norm"],
        checkpoint_steps=checkpoint_steps,
        micro_batch_tokens=recipe.get("micro_batch_tokens", math.inf),
        scheduler=recipe.get("lr_scheduler_type"),
        options=recipe.get("lr_scheduler_kwargs", {}),
    )


def resources_of(
    fit: TrainingLoop, recipe: TrainingParams, trainable: int, total: int, ranks: list[dict[str, int]]
) -> dict[str, Any]:
    """Return what a finished run cost: times in seconds, memory in bytes, and the hardware it ran on."""
    return {
        "seconds": fit.seconds,
        "cpu_seconds_of_rank_0": fit.cpu_seconds,
        "train_tokens": fit.log[-1]["tokens"],
        "computed_tokens": fit.log[-1]["computed_tokens"],
        "tokens_per_second": fit.log[-1]["tokens"] / fit.seconds,
        **({"kept_step": fit.best} if fit.keep_best else {}),
        "trainable_parameters": trainable,
        "total_parameters": total,
        "world_size": fit.accelerator.num_processes,
        "threads_per_rank": recipe["threads"],
        "peak_memory_bytes": max(rank["peak_memory_bytes"] for rank in ranks),
        "ranks": ranks,
        "hardware": {**manifest.hardware(), "gpu": torch.cuda.is_available()},
    }


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        TrainingParams,
        "--base-directory --tokens-directory --output-directory",
        work="directory for the checkpoints of an unfinished run",
    )
    parser.add_argument("--checkpoint-steps", type=int, default=100, help="steps between two checkpoints")
    parser.add_argument(
        "--track",
        nargs="+",
        default=[],
        help=f"also log every step, to any of {', '.join(get_args(Tracker))}, below {TRACKING}/",
    )
    parser.add_argument("--start-from", type=Path, nargs="*", default=[], help="files of an adapter to start from")
    arguments = parser.parse_args()
    recipe: TrainingParams = arguments.recipe
    out, work, inputs = arguments.output_directory, arguments.work, inputs_of(arguments)

    # --- Load: data and base model ---
    limit_threads(recipe["threads"])
    if {"micro_batch_tokens", "gradient_checkpointing"} & recipe.keys():
        return_freed_memory()
    # DeepSpeed calls functions that torch has since renamed, at every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    elements = count_elements(arguments.base_directory / "model.safetensors")
    name = "/".join(out.parts[-4:])
    accelerator = accelerator_for(recipe, elements, trackers_of(arguments.track, name))
    if accelerator.is_main_process:
        files.claim(work)
        for path in inputs:
            manifest.prove(path)
        manifest.prove_sources(recipe.get("start_digests", {}))
    going_on = arguments.start_from[0].parent if arguments.start_from else None
    if going_on and (going_on.parent / "manifest.json").exists():
        check_base(arguments.base_directory, going_on.parent / "manifest.json")
    start(accelerator, recipe)
    rows, validation = (
        read_rows(arguments.tokens_directory / f"{split}.safetensors") for split in ("train", "validation")
    )
    imported = peak_memory()
    torch.manual_seed(recipe["seed"])
    model = load_base(arguments.base_directory, recipe["base_precision"], recipe["compute_precision"])
    recompute(model, recipe.get("gradient_checkpointing", False))
    plan = plan_of(recipe, rows, arguments.checkpoint_steps)
    pad = model.config.pad_token_id if model.config.pad_token_id is not None else 0

    # --- Attach: the adapter, if any, and the optimizer ---
    taken: dict[str, torch.Tensor] = {}
    if recipe["adapter"]:
        light = recipe.get("light_dora", True), going_on, recipe.get("light_lora", True)
        model = attach(model, recipe["adapter"], len(plan.batches), *light)
        taken = taken_from_base(model, recipe["adapter"])
        trainable, total = model.get_nb_trainable_parameters()
    else:
        trainable = total = parameter_count(model)
    # Two checkpoints may exist at once, or three with the best, each of weights and two Adam moments, and the result;
    # DeepSpeed's have the base too.
    kept = 3 if recipe.get("load_best_model_at_end") else 2
    frozen = kept * elements if recipe["adapter"] and recipe["engine"]["type"] == "deepspeed" else 0
    files.need_space(work, 4 * ((3 * kept + 1) * trainable + frozen), "training (checkpoints and the result)")
    if "neftune_noise_alpha" in recipe:
        activate_neftune(model, recipe["neftune_noise_alpha"])
    model.train()
    if (reason := obstacle(model, recipe.get("share_prompts"))) and accelerator.is_main_process:
        print(f"[{name}] rows are padded, and shared prompts are computed once per row: {reason}", flush=True)
    if budget := budget_of(model):
        accelerator.register_for_checkpointing(budget)
    model, optimizer = accelerator.prepare(model, optimizer_for(model, recipe))

    # --- Train: from the last checkpoint, if any ---
    fit = TrainingLoop(
        accelerator,
        model,
        optimizer,
        rows,
        pad,
        plan,
        Checkpoints(accelerator, work, checkpoint_key(recipe, inputs), whole=not recipe["adapter"]),
        name=name,
        shared=not reason,
        skip_logits=recipe.get("skip_logits", True),
        smoothing=recipe.get("label_smoothing_factor", 0.0),
        patience=recipe.get("early_stopping_patience", math.inf),
        keep_best=recipe.get("load_best_model_at_end", False),
        interrupted=stop_notice(),
        budget=budget,
    )
    # A run with `steps` only measures the cost of training.
    validate = None
    if "steps" not in recipe:
        limits = (VALIDATION_ROWS, recipe.get("micro_batch_tokens", VALIDATION_TOKENS), fit.shared, fit.skip_logits)
        validate = partial(mean_loss, model, validation, pad, accelerator.device, *limits)
    fit.run(validate, recipe.get("eval_steps", math.ceil(len(rows) / recipe["batch_rows"])))

    # --- Save: weights, learning curve and resources ---
    ranks = gather(
        accelerator,
        {
            "peak_memory_bytes": max(peak_memory(), fit.earlier_peak),
            "imported_memory_bytes": imported,
            **model_state_bytes(accelerator.unwrap_model(model), optimizer, recipe["engine"]),
        },
    )
    saved = save(accelerator, model, recipe, taken, out) if recipe["keep_weights"] else []
    if accelerator.is_main_process:
        files.write_jsonl(out / "train.jsonl", fit.log)
        files.write_json(out / "resources.json", resources_of(fit, recipe, trainable, total, ranks))
        if recipe["keep_weights"]:
            manifest.record(out, recipe, inputs, saved)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(work, ignore_errors=True)
    accelerator.end_training()


if __name__ == "__main__":
    errors.run(main)
