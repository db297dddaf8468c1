"""A project of AI Toolkit of one small technique, and the results that it is written from."""

import json
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

import write_ai_toolkit
from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.config.technique import Technique
from snaketune.config.validation import validated
from snaketune.core.files import write_jsonl
from snaketune.core.layout import MODEL_FILES
from snaketune.core.manifest import record
from snaketune.data.chat_template import CHAT_TEMPLATE, END, SPECIAL_TOKENS
from support.measurements import run_script

ROOT = Path(__file__).parents[2]
LAYERS = sorted(LINEAR_LAYERS["phi3"])
CHATS = [
    [{"role": "user", "content": "ab c"}, {"role": "assistant", "content": "cba"}],
    [
        {"role": "system", "content": "b"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "c c"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "a"},
    ],
]


def recipe(name: str, **changed: Any) -> dict[str, Any]:
    """What `train.py` is told of a technique of config/."""
    content = yaml.safe_load((ROOT / f"config/techniques/{name}.yaml").read_text())
    resolved = validated(Technique, {**content, "learning_rate": 2e-4}, name).recipe("phi3")
    return {**resolved, "epochs": 2, "batch_rows": 16, "seed": 1, "keep_weights": True, **changed}


def tokenizer() -> PreTrainedTokenizerFast:
    """One that knows a few letters and the chat format."""
    kept = [*SPECIAL_TOKENS, *"abcstuerimnod <|>Ċ"]
    made = Tokenizer(
        BPE({token: number for number, token in enumerate(dict.fromkeys(kept))}, [], unk_token=SPECIAL_TOKENS[0])
    )
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.add_special_tokens(SPECIAL_TOKENS)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, bos_token=SPECIAL_TOKENS[0])
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_results(tmp_path: Path) -> Path:
    """Rows and a base model, with their manifests."""
    data, base = tmp_path / "data", tmp_path / "base"
    rows = [{"id": str(i), "messages": CHATS[0], "reference": "cba"} for i in range(4)]
    for split in ("train", "validation"):
        write_jsonl(data / f"{split}.jsonl", rows)
    record(data, {}, [], [data / "train.jsonl", data / "validation.jsonl"])
    base.mkdir()
    for name in MODEL_FILES:
        (base / name).write_text(name)
    record(base, {}, [], [base / name for name in MODEL_FILES])
    return tmp_path


def project(results: Path, technique: str, **model: Any) -> Path:
    told = {
        "cell": ["tiny", "tickets", technique, 1],
        "training": recipe(technique),
        "model": {"hub": None, "revision": None, "licence": "MIT", **model},
        "scenario": {"max_tokens": 128, "licence": "internal"},
        "layers": LAYERS,
        "description": "Low-rank.",
    }
    base = () if model.get("hub") else ("--base-directory", results / "base")
    where = ("--data-directory", results / "data", *base, "--output-directory", results / "project")
    templates = ("--templates", ROOT / "report/ai_toolkit", "--lock", ROOT / "envs/train/requirements.txt")
    run_script(write_ai_toolkit, "--recipe", json.dumps(told), *where, *templates)
    return results / "project"
