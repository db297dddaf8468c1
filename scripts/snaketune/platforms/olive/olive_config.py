"""Convert a run to a configuration of Olive, which AI Toolkit projects train with, and back.

Keys and defaults are those of Olive 0.13 (olive/passes/pytorch/lora.py); files of older releases
with `lora_r` and `lora_alpha` are read too.
"""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from snaketune.config.base import Share
from snaketune.config.technique import OF_THE_LOOP
from snaketune.config.validation import validated
from snaketune.core.errors import UserError

# What this workflow always does, and Olive only if configured to.
ALWAYS: dict[str, Any] = {
    "optim": "adamw_torch",
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "gradient_checkpointing": False,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_steps": 10,
    "report_to": "none",
    "output_dir": "models/checkpoints",
}
PASSES = ("LoRA", "QLoRA", "DoRA")
# Model, data and output: set in other files of config/.
ELSEWHERE = {"input_model", "data_configs", "systems", "engine", "passes", "workflow_id"}
Whole = Annotated[int, Field(ge=0)]


class _Arguments(BaseModel):
    """The `training_args` of a pass that a technique or an experiment also has."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    learning_rate: PositiveFloat = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup_ratio: Share = 0.03
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    num_train_epochs: PositiveInt = 3
    per_device_train_batch_size: PositiveInt = 8
    per_device_eval_batch_size: PositiveInt = 8
    gradient_accumulation_steps: PositiveInt = 1
    seed: Whole = 42
    data_seed: int | None = None


class _Pass(BaseModel):
    """The options of a LoRA, QLoRA or DoRA pass that a technique also has."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    type: str
    r: PositiveInt = Field(64, validation_alias=AliasChoices("r", "lora_r"))
    alpha: PositiveFloat = Field(16, validation_alias=AliasChoices("alpha", "lora_alpha"))
    lora_dropout: Share = 0.05
    target_modules: Annotated[list[str], Field(min_length=1)] | None = None
    double_quant: bool = False
    quant_type: str = "nf4"
    train_data_config: Any = None
    eval_data_config: Any = None
    training_args: _Arguments = _Arguments()


def refusal(recipe: dict[str, Any], layers: set[str] | None = None) -> str | None:
    """Return why Olive can't train a run, or None; ``layers`` are the model's linear layers."""
    adapter = recipe["adapter"]
    if adapter is None or adapter["type"] != "lora":
        return f"it trains {adapter['type'] if adapter else 'all weights'}; Olive's passes train {', '.join(PASSES)}"
    options, nf4 = adapter["options"], recipe["base_precision"] == "nf4"
    if options["use_rslora"] or options["init_lora_weights"] is not True or "modules_to_save" in options:
        return "Olive has no option for use_rslora, init_lora_weights and modules_to_save"
    if nf4 and options["use_dora"]:
        return "Olive's QLoRA can't train DoRA"
    if nf4 and layers and set(options["target_modules"]) != layers:
        return f"Olive's QLoRA trains every linear layer ({', '.join(sorted(layers))}), whatever target_modules are"
    if recipe["base_precision"] not in ("fp32", "nf4") or "optimizer" in recipe:
        return (
            "Olive's passes have neither base_precision bf16, fp16, int8 and export: nor another optimizer than AdamW"
        )
    if given := sorted(OF_THE_LOOP & recipe.keys()):
        return f"a project doesn't carry {given[0]}"
    if recipe["engine"]["type"] != "torch" or recipe["world_size"] > 1:
        return "a project trains in one process, without DeepSpeed"
    return "warmup_share: 1 would be one step" if recipe["warmup_share"] == 1 else None


def carried(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a configuration has; its micro-batch must divide the global batch."""
    keys = ("adapter", "base_precision", "learning_rate", "weight_decay", "warmup_share", "max_grad_norm")
    batch = recipe["batch_rows"]
    micro = max(rows for rows in range(1, min(batch, recipe["micro_batch_rows"]) + 1) if batch % rows == 0)
    return {key: recipe[key] for key in (*keys, "epochs", "batch_rows", "seed")} | {"micro_batch_rows": micro}


def configuration(recipe: dict[str, Any], model_path: str, longest: int) -> dict[str, Any]:
    """Return the olive-config.json of a run that Olive can train.

    Args:
        recipe: of `train.py`, with one learning rate.
        model_path: where the project keeps the base model.
        longest: tokens of a row; longer rows are cut.
    """
    known, options = carried(recipe), recipe["adapter"]["options"]
    kind = "QLoRA" if recipe["base_precision"] == "nf4" else "DoRA" if options["use_dora"] else "LoRA"
    quantized = {"compute_dtype": "float32", "double_quant": True, "quant_type": "nf4"} if kind == "QLoRA" else {}
    arguments = {
        "seed": known["seed"],
        "data_seed": known["seed"],
        "per_device_train_batch_size": known["micro_batch_rows"],
        "per_device_eval_batch_size": known["micro_batch_rows"],
        "gradient_accumulation_steps": known["batch_rows"] // known["micro_batch_rows"],
        "learning_rate": known["learning_rate"],
        # transformers 5 has no warmup_ratio any more, and reads a number below 1 as a share.
        "warmup_steps": known["warmup_share"],
        "weight_decay": known["weight_decay"],
        "max_grad_norm": known["max_grad_norm"],
        "num_train_epochs": known["epochs"],
        **ALWAYS,
    }
    trained = {
        "type": kind,
        "r": options["r"],
        "alpha": options["lora_alpha"],
        "lora_dropout": options["lora_dropout"],
        "target_modules": options["target_modules"],
        "torch_dtype": "float32",
        **quantized,
        "train_data_config": "train",
        "eval_data_config": "validation",
        "training_args": arguments,
    }
    return {
        "input_model": {"type": "HfModel", "model_path": model_path},
        "data_configs": [_rows(name, longest) for name in ("train", "validation")],
        "passes": {kind.lower(): trained},
        "engine": {"evaluate_input_model": False, "cache_dir": "cache", "output_dir": f"models/{kind.lower()}"},
    }


def _rows(name: str, longest: int) -> dict[str, Any]:
    return {
        "name": name,
        "type": "HuggingfaceContainer",
        "user_script": "finetuning/qlora_user_script.py",
        # The JSON reader names the only split of a file train.
        "load_dataset_config": {"data_name": "json", "data_files": f"dataset/{name}.jsonl", "split": "train"},
        "pre_process_data_config": {"type": "answers_of_chats", "longest": longest},
    }


def read(content: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return a configuration as training parameters, and what has no counterpart here, each with its key.

    Raises:
        UserError: no pass corresponds to a technique, or a value is invalid; one message lists every fault.
    """
    passes = content.get("passes")
    if not isinstance(passes, dict):
        raise UserError(f'{where}: passes: expected an object like {{"qlora": {{"type": "QLoRA", …}}}}')
    # Olive accepts a list of passes under one name, too.
    flat = {key: one[0] if isinstance(one, list) and len(one) == 1 else one for key, one in passes.items()}
    kinds = {key: str(one.get("type")) if isinstance(one, dict) else "" for key, one in flat.items()}
    own = {kind.lower(): kind for kind in PASSES}
    found = [key for key, kind in kinds.items() if kind.lower() in own]
    if len(found) != 1:
        raise UserError(
            f"{where}: passes: expected one of type {' or '.join(PASSES)}, found {', '.join(kinds.values()) or 'none'}"
        )
    key, place = found[0], f"passes.{found[0]}"
    kind = own[kinds[key].lower()]
    # Older files nest the parameters in an object of the pass.
    nested = flat[key].get("config")
    given = {**flat[key], **nested} if isinstance(nested, dict) else flat[key]
    trained: _Pass = validated(_Pass, given, f"{where}: {place}")
    if trained.quant_type != "nf4":
        raise UserError(f"{where}: {place}.quant_type: {trained.quant_type} can't be trained here: expected nf4")
    left = [
        f"{name}: this workflow exports models itself" for name in sorted(f"passes.{one}" for one in flat if one != key)
    ]
    left += [f"{name}: unknown" for name in sorted(content.keys() - ELSEWHERE)]
    return _recipe(trained, kind), left + _left_of(trained, kind, place)


def _recipe(trained: _Pass, kind: str) -> dict[str, Any]:
    given = trained.training_args
    options = {
        "r": trained.r,
        "lora_alpha": trained.alpha,
        "lora_dropout": trained.lora_dropout,
        "target_modules": trained.target_modules,
        "use_dora": kind == "DoRA",
        "use_rslora": False,
        "init_lora_weights": True,
    }
    return {
        "adapter": {"type": "lora", "options": options},
        "base_precision": "nf4" if kind == "QLoRA" else "fp32",
        "learning_rate": given.learning_rate,
        "weight_decay": given.weight_decay,
        "warmup_share": given.warmup_ratio if given.warmup_steps is None else given.warmup_steps,
        "max_grad_norm": given.max_grad_norm,
        "micro_batch_rows": given.per_device_train_batch_size,
        "epochs": given.num_train_epochs,
        "batch_rows": given.per_device_train_batch_size * given.gradient_accumulation_steps,
        "seed": given.seed,
    }


def _left_of(trained: _Pass, kind: str, place: str) -> list[str]:
    """List the options of a pass that a technique lacks, unless this workflow does the same anyway."""
    left, arguments = [], trained.training_args
    for name, value in sorted((trained.model_extra or {}).items()):
        if name in ("torch_dtype", "compute_dtype"):
            left += [f"{place}.{name}: {value}; training is in float32 here"] if value != "float32" else []
        elif name != "config":
            left.append(f"{place}.{name}: a technique has no such key")
    if kind == "QLoRA" and not trained.double_quant:
        left.append(f"{place}.double_quant: false; nf4 is always quantized twice here")
    for name, value in sorted((arguments.model_extra or {}).items()):
        if name not in ALWAYS or (value != ALWAYS[name] and name not in ("logging_steps", "output_dir", "report_to")):
            always = f"; it is {ALWAYS[name]} here" if name in ALWAYS else "; a technique has no such key"
            left.append(f"{place}.training_args.{name}: {value}{always}")
    if arguments.data_seed not in (None, arguments.seed):
        left.append(f"{place}.training_args.data_seed: {arguments.data_seed}; one seed, {arguments.seed}, decides all")
    return left
