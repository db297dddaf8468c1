"""Small random models: a Phi-3 that takes its steps in milliseconds, and the sizes of any family."""

from typing import Any

import torch
from transformers import Phi3Config, Phi3ForCausalLM

# Of a small random model of any family: 64 tokens, two layers, grouped queries.
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def tiny_phi3(context: int, **other: Any) -> Phi3ForCausalLM:
    """The same random weights at every call: 64 tokens, two layers, grouped queries, so many positions."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    positions = {"max_position_embeddings": context, "original_max_position_embeddings": context}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return Phi3ForCausalLM(Phi3Config(**{**sizes, **heads, **positions, **tokens, **other}))
