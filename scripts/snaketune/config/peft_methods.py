"""The methods of peft, what each is told, and how a run of it ends.

Names and options are read from peft's source: importing it imports torch, which takes seconds that a plan doesn't have.
"""

import ast
import difflib
import typing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

# Those with a model of their own in config/adapter.py, by peft's name.
OWN = {"lora": "lora", "ia3": "ia3", "vera": "vera", "prefix_tuning": "prefix"}
REFUSED = {
    "adaption_prompt": "it replaces the attention of a few model families and doesn't support their cache",
    "cartridge": "it starts from the keys and values of a text and is distilled on questions about it",
    "cpt": "it starts from the tokens of a context and needs the type of each",
    "lily": "its router averages over a batch, so a row's result depends on the other rows and on padding",
    "multitask_prompt_tuning": "it needs a task id for each row",
    "poly": "it needs a task id for each row",
    "shadow": "it runs a second network next to the base, with its own cache",
    "xlora": "it mixes LoRA adapters that must be trained first",
}
# Their trained embeddings stand before each text: what the base makes of them is the prefix that a run starts from.
EMBEDDED = ("prompt_tuning", "p_tuning")
UNMERGED = {"beft": "it trains biases of layers that have none"}
# What snaketune sets, or doesn't allow: ASA is AdaLoRA's schedule, whole modules beside an adapter may be tied, and answers
# aren't drawn.
SET = {
    "asa_importance_beta", "asa_schedule_exponent", "asa_target_subspaces", "asa_uncertainty_beta", "auto_mapping",
    "base_model_name_or_path", "final_warmup", "generator_seed", "inference_mode", "init_warmup", "mask_interval",
    "modules_to_save", "num_attention_heads", "num_layers", "num_transformer_submodules", "peft_type", "peft_version",
    "prompt_tuning_init_text", "revision", "sample_at_inference", "task_type", "token_dim", "tokenizer_kwargs",
    "tokenizer_name_or_path", "total_step", "use_asa",
}  # fmt: skip
OF_ADALORA = {
    "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "layers_to_transform", "layers_pattern",
}  # fmt: skip
NEEDED = {"num_virtual_tokens", "token_indices"}
# Instead of linear layers: a regular expression of the modules' names, or what peft itself takes.
OTHER_TARGETS = {"ln_tuning": {"target_modules": r".*norm"}, "trainable_tokens": {}}
# Where peft's configuration classes are.
FILES = ("config.py", "tuners/*.py", "tuners/*/config.py")
OWN_LAYERS = "it chooses its own layers: leave it out"
Ends = Literal["merged", "prefix", "adapter"]


def ends(method: str) -> Ends:
    """Return what a run ends with: one merged model, its base started from a prefix, or its base with the adapter beside it."""
    if method in (*EMBEDDED, "prefix"):
        return "prefix"
    return "adapter" if method in UNMERGED else "merged"


@cache
def _classes(pattern: str) -> dict[str, ast.ClassDef]:
    """Return the classes of peft's files by name."""
    found: dict[str, ast.ClassDef] = {}
    for path in _package().glob(pattern):
        found |= {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    return found


def _package() -> Path:
    spec = find_spec("peft")
    if spec is None or spec.origin is None:
        raise ValueError(
            "peft isn't installed here, so its options can't be checked: make the environment of envs/workflow"
        )
    return Path(spec.origin).parent


@cache
def methods() -> dict[str, str]:
    """Return the name of each method that peft registers, with that of its configuration class."""
    found = {}
    for path in sorted(_package().glob("tuners/*/__init__.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if ast.unparse(call.func) == "register_peft_method":
                given = {one.arg: one.value for one in call.keywords}
                found[ast.literal_eval(given["name"])] = ast.unparse(given["config_cls"])
    return found


def options(method: str) -> dict[str, str]:
    """Return the options of a method, each with its type as peft's source writes it."""
    found = _fields(methods()[method])
    hidden = SET | ({"target_modules"} if method in OTHER_TARGETS else set())
    if method == "adalora":
        # It inherits LoRA's, and refuses or ignores most.
        hidden |= _fields("LoraConfig").keys() - OF_ADALORA
    return {name: kind for name, kind in found.items() if name not in hidden}


def _fields(name: str) -> dict[str, str]:
    """Return the fields of a configuration class, inherited ones first."""
    node = next(found[name] for found in map(_classes, FILES) if name in found)
    found: dict[str, str] = {}
    for base in node.bases:
        if (parent := ast.unparse(base)).endswith("Config"):
            found |= _fields(parent)
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    return found | {ast.unparse(line.target): ast.unparse(line.annotation) for line in lines}


def with_defaults(method: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return options with the layers that a method changes, of which peft knows no default in most families."""
    if method in OTHER_TARGETS:
        return {**OTHER_TARGETS[method], **given}
    return {**({"target_modules": "all-linear"} if "target_modules" in options(method) else {}), **given}


def check_name(method: str) -> str:
    """Return the name of a method that can be trained; a ValueError says why it can't be."""
    if method in REFUSED:
        raise ValueError(f"{method} can't be trained here: {REFUSED[method]}")
    known = sorted({OWN.get(name, name) for name in methods()} - REFUSED.keys())
    if method not in known:
        near = difflib.get_close_matches(OWN.get(method, method), known, n=1)
        raise ValueError(
            f"peft has no such method; did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        )
    return method


def check_options(method: str, given: dict[str, Any]) -> None:
    """Raise a ValueError that names each option that a method doesn't have, lacks or has of another type."""
    known, faults = options(method), []
    for name in sorted(NEEDED & known.keys() - given.keys()):
        faults.append(f"{name}: missing")
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            faults.append(f"{name}: unknown option of {method}; {OWN_LAYERS if name == 'target_modules' else hint}")
        elif name != "target_modules" and (fault := _misfit(known[name], value)):
            faults.append(f"{name}: {fault} (found {value!r}){_as_number(value)}")
    if given.get("prompt_tuning_init") == "TEXT":
        faults.append("prompt_tuning_init: TEXT needs a tokenizer's path: use SAMPLE_VOCAB or RANDOM")
    if faults:
        raise ValueError("; ".join(faults))


def _as_number(value: Any) -> str:
    """Return how to write a number that YAML reads as a text, such as 1e-4."""
    try:
        return f"; YAML reads it as a text: write {float(value)}" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _misfit(kind: str, value: Any) -> str:
    """Return what is wrong with a value for a type of peft's source; nothing for a type that only peft knows."""
    try:
        wanted = eval(kind, dict(vars(typing)))  # noqa: S307 (the source of an installed package)
    except NameError:
        return ""
    try:
        TypeAdapter(wanted, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        return ", or ".join(dict.fromkeys(one["msg"].removeprefix("Input ") for one in error.errors()))
    return ""
