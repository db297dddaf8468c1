"""The sizes of a model, from which its memory and time are estimated."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A decoder with gated feed-forward layers, as Phi-3 and Llama; sizes count numbers."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    tied: bool
    head: int | None = None

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Shape":
        """Read the keys of a transformers ``config.json``.

        Raises:
            KeyError: it has no sizes of a decoder.
        """
        heads = config["num_attention_heads"]
        return cls(
            config["hidden_size"],
            config["num_hidden_layers"],
            config.get("intermediate_size") or 4 * config["hidden_size"],
            heads,
            config.get("num_key_value_heads") or heads,
            config["vocab_size"],
            config.get("max_position_embeddings", 2**31),
            bool(config.get("tie_word_embeddings", False)),
            config.get("head_dim"),
        )

    @property
    def keys(self) -> int:
        """Return the width of all keys of a token, which is that of its values too."""
        return (self.head or self.hidden // self.heads) * self.kv_heads

    @property
    def queries(self) -> int:
        """Return the width of all queries of a token: in Qwen3 and Gemma not that of its hidden vector."""
        return self.head * self.heads if self.head else self.hidden

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Return (inputs, outputs) of the linear layers of a block, by each name a model may give them."""
        h, i, k, q = self.hidden, self.intermediate, self.keys, self.queries
        fused = {"qkv_proj": (h, q + 2 * k), "gate_up_proj": (h, 2 * i)}
        separate = {"q_proj": (h, q), "k_proj": (h, k), "v_proj": (h, k), "gate_proj": (h, i), "up_proj": (h, i)}
        return fused | separate | {"o_proj": (q, h), "dense": (q, h), "down_proj": (i, h), "fc1": (h, i), "fc2": (i, h)}

    @property
    def block(self) -> int:
        """Return how many numbers the linear layers of a block hold."""
        h, i, k, q = self.hidden, self.intermediate, self.keys, self.queries
        return h * (q + 2 * k) + q * h + 3 * h * i

    @property
    def parameters(self) -> int:
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return tables + self.layers * (self.block + 2 * self.hidden) + self.hidden


# Phi-3-mini, 3.8 billion parameters: assumed of a hub model until it is fetched.
UNKNOWN = Shape(3072, 32, 8192, 32, 32, 32064, 4096, False)
