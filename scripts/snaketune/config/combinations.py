"""Check what no file of config/ can tell alone: how those that an experiment names fit together.

Each function raises a UserError.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.config.experiment import Experiment
from snaketune.config.export import AnyExport
from snaketune.config.model import Model
from snaketune.config.peft_methods import UNMERGED
from snaketune.config.scenario import Scenario
from snaketune.config.technique import Technique
from snaketune.config.validation import path_advice
from snaketune.core.errors import UserError
from snaketune.core.quantized import refuse_quantized, tensors

Models = dict[str, Model]
Techniques = dict[str, Technique]
# By model and technique.
Adapters = dict[str, dict[str, dict[str, Any] | None]]


def check_models(models: list[str], techniques: Collection[str]) -> None:
    here = list(techniques)
    if here and not models:
        raise UserError(f"models: []: {here[0]} is trained locally and needs a model")
    if models and not here:
        named = ", ".join(models)
        raise UserError(f"models: {named}: every technique is hosted and names its own model: write models: []")


def check_exports(
    experiment: Experiment, techniques: Techniques, exports: dict[str, AnyExport], known: Collection[str]
) -> None:
    """``known`` are the names of all files in config/exports/."""
    for step, budget in experiment.parity.budgets.items():
        name = step.removeprefix("onnx-fp32-")
        for key in ("smallest_prompt_agreement", "smallest_stop_agreement"):
            if getattr(budget, key) is not None and not name.startswith("genai-"):
                raise UserError(f"parity.budgets.{step}.{key}: only a genai precision has its own tokenizer and loop")
        if name != step and name not in known:
            raise UserError(
                f"parity.budgets: there is no conversion step {step}, as there is no config/exports/{name}.yaml; there are {', '.join(sorted(known))}"
            )
    for name, technique in techniques.items():
        if technique.adapter and technique.ends == "adapter" and experiment.precisions:
            method = technique.adapter.type
            raise UserError(
                f"config/techniques/{name}.yaml: adapter.type: peft can't merge {method} ({UNMERGED[method]}), so it has no ONNX file: leave {name} out, or set `precisions: []`"
            )
    for name, export in exports.items():
        if name in ("adapter", "fp32"):
            raise UserError(f"config/exports/{name}.yaml: a run has another folder onnx/{name}/: rename the file")
        if name.startswith("genai-") != export.method.startswith("genai"):
            raise UserError(
                f"config/exports/{name}.yaml: the names of exports with method genai or genai-auto, and of no others, begin with genai-, which selects their runtime: rename the file"
            )


def check_targets(root: Path, models: Models, families: dict[str, str], adapters: Adapters) -> None:
    """``adapters`` are those of every (model, technique) of an experiment, as in a recipe."""
    for model_name, model in models.items():
        modules = set(LINEAR_LAYERS.get(model.model_type, ()))
        if model.path:
            found = tensors(root / model.path)
            modules = {key.split(".")[-2] for key, _, size in found if key.endswith(".weight") and len(size) == 2}
        for name, adapter in adapters[model_name].items():
            options = (adapter or {"options": {}})["options"]
            # As peft finds them.
            ends = tuple(options.get("modules_to_save", []))
            tied = [one for one in ("embed_tokens", "lm_head") if one.endswith(ends)]
            if tied and model.sizes.get("tie_word_embeddings"):
                raise UserError(
                    f"config/techniques/{name}.yaml: adapter.options.modules_to_save: {tied[0]} of {model_name} is tied: embeddings and head share its weights: train all weights, or leave it out"
                )
            targets = options.get("target_modules") or []
            if isinstance(targets, str):
                # peft_methods.OTHER_TARGETS: no linear layers.
                continue
            if extra := set(options.get("feedforward_modules", [])) - set(targets):
                raise UserError(
                    f"config/techniques/{name}.yaml: adapter.options.feedforward_modules: {', '.join(sorted(extra))} must also be in target_modules, which are {', '.join(targets)} in {model_name}: list both"
                )
            if modules and (missing := [target for target in targets if target not in modules]):
                fused = " (Phi-3 fuses q, k and v into qkv_proj, gate and up into gate_up_proj)"
                hint = fused if families[model_name] == "phi3" else ""
                raise UserError(
                    f"config/techniques/{name}.yaml: adapter.options.target_modules: {', '.join(missing)} match no module of {model_name}, so they would be left out; it has {', '.join(sorted(modules))}{hint}"
                )


def check_precision(compute: str, techniques: Techniques) -> None:
    for name, technique in techniques.items():
        if {technique.base_precision, compute} == {"bf16", "fp16"}:
            raise UserError(
                f"config/techniques/{name}.yaml: base_precision {technique.base_precision} and training.compute_precision {compute} are different 16-bit formats: make them the same"
            )
        if compute == "fp16" and technique.engine.type == "deepspeed":
            raise UserError(
                f"training.compute_precision: fp16 has a gradient scaler, which {name} of the DeepSpeed engine lacks: use bf16 or fp32"
            )


def check_files(root: Path, models: Models, scenarios: dict[str, Scenario]) -> None:
    needed = []
    for name, scenario in scenarios.items():
        key, expected = f"scenarios/{name}.yaml: source.path", "a JSONL, JSON, CSV or Parquet file"
        needed += [(key, path, expected) for path in scenario.source.paths]
    for name, model in models.items():
        if model.gguf and model.gguf.local:
            needed.append((f"models/{name}.yaml: gguf.file", model.gguf.local, "a GGUF file"))
        if model.path:
            needed.append((f"models/{name}.yaml: path", f"{model.path}/config.json", "a transformers model"))
    for key, path, expected in needed:
        if "{" in path or "}" in path:
            raise UserError(f"config/{key}: {path}: Snakemake reads braces as a wildcard: rename it")
        if not (root / path).is_file():
            raise UserError(f"config/{key}: {path}: no such file; expected {expected}{path_advice(path)}")
    for name, model in models.items():
        if model.path:
            refuse_quantized(root / model.path, f"config/models/{name}.yaml: path: {model.path}")
