"""Random models of the families that onnxruntime-genai's builder knows, with a tokenizer of bytes."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

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
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 4 for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "phi3": {"model_type": "phi3", "tie_word_embeddings": True, "original_max_position_embeddings": 128},
    "phi3, a window of 8": {"model_type": "phi3", "sliding_window": 8, "original_max_position_embeddings": 128},
    "phi3, long-rope": {"model_type": "phi3", "original_max_position_embeddings": 64, "rope_parameters": LONG},
    "llama": {"model_type": "llama"},
    "llama, scaled rope": {"model_type": "llama", "rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
}


def merged(directory: Path, template: str | None = CHAT_TEMPLATE, **config: Any) -> Path:
    """A random model with a tokenizer of bytes, as merged/ of a run is."""
    torch.manual_seed(1)
    letters = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    kind = config.pop("model_type")
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **WIDTHS, vocab_size=len(letters), **config))
    # Of the usual width, random weights leave all tokens about equally likely.
    for weight in made.parameters():
        weight.data *= 3 if weight.ndim > 1 else 1
    made.save_pretrained(directory)
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"bos_token": PAD, "eos_token": END, "pad_token": PAD, "unk_token": PAD}
    kept = {"chat_template": template} if template else {}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special, **kept})
    record(directory, {}, [], [directory / name for name in MODEL_FILES])
    return directory
