"""Random models of the families that we name, with config.json as on the hub and a tokenizer of bytes."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import fetch_model
from snaketune.core.files import write_json
from snaketune.core.layout import MODEL_FILES
from snaketune.core.manifest import record
from snaketune.data.chat_template import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS

WIDTHS = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 4,
    "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


def longrope(kind: str, pairs: int) -> dict[str, Any]:
    factors = {"short_factor": [1.0 + i / 4 for i in range(pairs)], "long_factor": [2.0 + i for i in range(pairs)]}
    return {"type": kind, **factors}


# The keys that config.json has on the hub, written by transformers 4: of the models in the comments.
PHI3: dict[str, Any] = {
    "model_type": "phi3", "original_max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": None,
    "sliding_window": 2047, "attention_bias": False, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "model_type": "llama", "rope_theta": 500000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
    "pretraining_tp": 1,
}  # fmt: skip
GEMMA = {"head_dim": 16, "rope_theta": 10000.0, "attention_bias": False}
QWEN = {"rope_theta": 1000000.0, "use_sliding_window": False, "max_window_layers": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "phi3": PHI3 | {"original_max_position_embeddings": 4096, "tie_word_embeddings": True},  # Phi-3-mini-4k, Phi-4
    "phi3, a window of 8": PHI3 | {"sliding_window": 8},
    "phi3, long-rope": PHI3
    | {"original_max_position_embeddings": 64, "rope_scaling": longrope("longrope", 8)},  # Phi-3.5-mini
    "phi3, su": PHI3 | {"original_max_position_embeddings": 64, "rope_scaling": longrope("su", 8)},  # Phi-3-mini-128k
    "phi3, part of each head": PHI3
    | {
        "original_max_position_embeddings": 64, "rope_scaling": longrope("longrope", 8), "partial_rotary_factor": 0.5,
        "num_attention_heads": 2,
        "tie_word_embeddings": True, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False,
    },  # Phi-4-mini
    "phi": {
        "model_type": "phi", "rope_theta": 10000.0, "rope_scaling": None, "partial_rotary_factor": 0.5,
        "num_attention_heads": 2, "qk_layernorm": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-05,
    },  # phi-2
    "llama": LLAMA,  # Llama-3, SmolLM2, TinyLlama
    "llama, scaled rope": LLAMA | {"rope_scaling": LLAMA3, "tie_word_embeddings": True, "head_dim": 16},  # Llama-3.2
    "llama, linear rope": LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}},  # deepseek-coder
    "llama, dynamic rope": LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "mistral": {"model_type": "mistral", "rope_theta": 10000.0, "sliding_window": 8},  # Mistral-7B-v0.1
    "mistral, no window": {"model_type": "mistral", "rope_theta": 1000000.0, "sliding_window": None},
    "qwen2": QWEN | {"model_type": "qwen2", "tie_word_embeddings": True, "sliding_window": 128},  # Qwen2.5
    "qwen3": QWEN | {"model_type": "qwen3", "head_dim": 16, "rope_scaling": None, "sliding_window": None},
    "gemma": GEMMA | {"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None},
    "gemma2": GEMMA
    | {
        "model_type": "gemma2", "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 16,
        "sliding_window": 8, "cache_implementation": "hybrid",
    },
}  # fmt: skip
# Those that onnxruntime-genai doesn't build.
WITHOUT_GENAI: dict[str, dict[str, Any]] = {
    "gemma3": GEMMA
    | {
        "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": None, "final_logit_softcapping": None, "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window": 8, "sliding_window_pattern": 2,
    },  # Gemma 3 1B
    "smollm3": {
        "model_type": "smollm3", "rope_theta": 5000000.0, "rope_scaling": None, "attention_bias": False,
        "mlp_bias": False, "no_rope_layers": [1, 0], "no_rope_layer_interval": 2, "use_sliding_window": False,
        "sliding_window": None, "max_window_layers": 2, "pretraining_tp": 1,
    },  # SmolLM3-3B
}  # fmt: skip


def on_the_hub(directory: Path, template: str | None = CHAT_TEMPLATE, **config: Any) -> None:
    """Write what a model has on the hub besides weights: config.json and a tokenizer of bytes."""
    letters = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"bos_token": PAD, "eos_token": END, "pad_token": PAD, "unk_token": PAD}
    kept = {"chat_template": template} if template else {}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special, **kept})
    kind = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config["model_type"]]
    found = {**WIDTHS, "vocab_size": len(letters), "torch_dtype": "bfloat16", "architectures": [kind], **config}
    write_json(directory / "config.json", found)


def merged(directory: Path, template: str | None = CHAT_TEMPLATE, **config: Any) -> Path:
    """A random model with a tokenizer of bytes, as base/ of a model with this ``config`` is."""
    on_the_hub(directory, template, **config)
    read = fetch_model.read_configuration(directory, directory)
    fetch_model.settle_tokens(directory, directory, AutoTokenizer.from_pretrained(directory))
    torch.manual_seed(1)
    made = AutoModelForCausalLM.from_config(read, dtype=torch.float32)
    # Of the usual width, random weights leave all tokens about equally likely.
    for weight in made.parameters():
        weight.data *= 3 if weight.ndim > 1 else 1
    fetched = {directory / name: (directory / name).read_text() for name in MODEL_FILES[1:3]}
    made.save_pretrained(directory)
    for path, text in fetched.items():
        path.write_text(text)
    record(directory, {}, [], [directory / name for name in MODEL_FILES])
    return directory
