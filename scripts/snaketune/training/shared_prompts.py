"""Rows as one sequence: what they begin with in common is computed once, and nothing is padded.

Rows are laid out one after the other, each without the tokens that it begins with like the row before it. Only attention
knows of rows: it looks up, for each row, the queries of the row's own tokens, and the keys and values of all of them.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding, embedding_bag, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv

NAME = "snaketune_rows"
# By transformers' model_type: those whose attention goes through its AttentionInterface, is over whole rows or
# windows of them, and depends on nothing but queries, keys, values and distances. Each is tested.
FAMILIES = {
    "apertus", "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma3_text", "glm4", "gpt_neox", "granite",
    "helium", "hunyuan_v1_dense", "llama", "ministral", "mistral", "mixtral", "olmo2", "olmo3", "phi", "phi3", "qwen2",
    "qwen3", "smollm3", "starcoder2",
}  # fmt: skip
# Largest share of the padded tokens at which laying rows out pays.
PAYS = 0.9
# Measured: looking up and attending to one more group of rows costs as much as so many pairs of a query and a key.
GROUP = 4096
# Most keys looked up for each of the most computed tokens: autograd keeps them, and memory is estimated by tokens.
LOOKUPS = 4
NOWHERE = 2**30


def obstacle(model: PreTrainedModel, wanted: bool | None) -> str:
    """Return why rows are padded all the same, or an empty string; ``wanted`` is the technique's `share_prompts`."""
    config: Any = model.config
    if wanted is False:
        return "share_prompts: false"
    if config.model_type not in FAMILIES or getattr(config, "use_bidirectional_attention", False):
        return f"the attention of {config.model_type} isn't known to allow for it"
    if hasattr(model.get_input_embeddings(), "neftune_noise_alpha"):
        return "neftune_noise_alpha, whose noise depends on a row's length"
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    if wanted is None and (drops or getattr(config, "attention_dropout", False)):
        return "dropout, which rows would share; share_prompts: true allows that"
    # Measured on an H200, 16 rows of 800 shared and 200 own tokens, 135 million parameters: 0.36 s a step instead of 0.13 in bf16.
    if wanted is None and torch.cuda.is_available():
        return "on a GPU it takes less memory but can take longer; share_prompts: true shares"
    return ""


def begin_alike(one: np.ndarray, other: np.ndarray) -> int:
    """Count the first tokens that two rows have in common."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(one[:size] != other[:size])
    return int(differ[0]) if len(differ) else size


def shared_tokens(rows: list[np.ndarray]) -> list[int]:
    """Return how many of its first tokens each row has in common with the row before it."""
    return [0, *(begin_alike(*pair) for pair in pairwise(rows))]


def computed_tokens(rows: list[np.ndarray]) -> tuple[int, bool]:
    """Return how many tokens are computed for rows, and whether they are laid out rather than padded."""
    own = sum(map(len, rows)) - sum(shared_tokens(rows))
    padded = len(rows) * max(map(len, rows))
    return (own, True) if own <= PAYS * padded else (padded, False)


class Rowwise(torch.autograd.Function):
    """Lookup of a table's rows, whose backward pass neither sorts indices nor adds up in a random order."""

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, lookup: "Lookup") -> torch.Tensor:
        ctx.lookup = lookup
        return embedding(lookup.index, table)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        found = embedding_bag(ctx.lookup.uses, gradient.flatten(0, -2), ctx.lookup.starts, mode="sum")
        return found, None


class Lookup:
    """Numbers of a table's rows, and for each row of the table where it is used, one row's after the other's."""

    def __init__(self, index: np.ndarray, size: int, device: torch.device):
        uses = index.argsort(axis=None, kind="stable")
        starts = np.searchsorted(index.ravel()[uses], np.arange(size))
        self.index, self.uses, self.starts = (torch.from_numpy(one).to(device) for one in (index, uses, starts))

    def __call__(self, table: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = Rowwise.apply(table, self)
        return found


class Group:
    """Rows that attend together, of a sequence of ``size`` tokens.

    Args:
        paths: the indices of each row's tokens.
        shared: how many of them, from the first on, aren't its own.
    """

    def __init__(self, paths: list[np.ndarray], shared: list[int], size: int, device: torch.device):
        own = list(zip(paths, shared, strict=True))
        self.size, self.device, self.paths = size, device, _padded(paths, None)
        self.queries = Lookup(_padded([path[common:] for path, common in own], None), size, device)
        self.query_positions = _padded([np.arange(common, len(path)) for path, common in own], None)
        self.key_positions = _padded([np.arange(len(path)) for path in paths], NOWHERE)
        self.whole = not any(shared)
        # Not functools.cache, whose reference to this group would keep large masks until the next collection.
        self.masks: dict[Any, torch.Tensor | None] = {}
        self.lookups: dict[int, Lookup] = {}

    def mask(self, window: int | None, virtual: int, dtype: torch.dtype) -> torch.Tensor | None:
        """Return what is added to scores, (rows, 1, queries, keys), or None where each query sees all keys up to its own."""
        key = window, virtual, dtype
        if key not in self.masks:
            self.masks[key] = self._mask(*key)
        return self.masks[key]

    def keys(self, virtual: int) -> Lookup:
        """Return where the keys of each row are, with so many trained ones before the sequence."""
        if virtual not in self.lookups:
            before = np.tile(np.arange(virtual), (len(self.paths), 1))
            index = np.hstack([before, self.paths + virtual])
            self.lookups[virtual] = Lookup(index, virtual + self.size, self.device)
        return self.lookups[virtual]

    def _mask(self, window: int | None, virtual: int, dtype: torch.dtype) -> torch.Tensor | None:
        # Padding comes last, where no query of a row sees it, and what its own queries find is not read.
        if self.whole and not virtual and (window is None or window >= self.paths.shape[1]):
            return None
        before = np.tile(np.arange(-virtual, 0), (len(self.paths), 1))
        keys, queries = np.hstack([before, self.key_positions])[:, None], self.query_positions[:, :, None]
        hidden = keys > queries if window is None else (keys > queries) | (keys <= queries - window)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
        return mask.masked_fill(torch.from_numpy(hidden).to(self.device), -torch.inf)[:, None]


@dataclass
class Layout:
    """Groups of rows, and for each token of the sequence its place among their queries."""

    groups: list[Group]
    places: Lookup


@dataclass
class Sequence:
    """Rows as one sequence: tokens and positions of it, and for each row the indices of its tokens in it."""

    ids: np.ndarray
    positions: np.ndarray
    paths: list[np.ndarray]
    shared: list[int]


def sequence_of(rows: list[np.ndarray]) -> Sequence:
    """Lay rows out, each without the tokens that it begins with like the row before it."""
    paths, used, shared = [np.arange(0)], 0, shared_tokens(rows)
    for row, common in zip(rows, shared, strict=True):
        own = np.arange(used, used + len(row) - common)
        paths.append(np.concatenate([paths[-1][:common], own]))
        used += len(own)
    ids = np.concatenate([row[common:] for row, common in zip(rows, shared, strict=True)])
    positions = np.concatenate([np.arange(common, len(row)) for row, common in zip(rows, shared, strict=True)])
    return Sequence(ids, positions, paths[1:], shared)


def layout_of(sequence: Sequence, device: torch.device) -> Layout:
    """Group the rows of a sequence, for a model on ``device``."""
    own = np.array([len(path) - common for path, common in zip(sequence.paths, sequence.shared, strict=True)])
    size, slots = len(sequence.ids), 0
    groups, places = [], np.empty(size, dtype=np.int64)
    for numbers in _grouped([n for n in np.argsort(-own, kind="stable") if own[n]], own, sequence.paths):
        paths, shared = [sequence.paths[n] for n in numbers], [sequence.shared[n] for n in numbers]
        groups.append(Group(paths, shared, size, device))
        for path, common in zip(paths, shared, strict=True):
            places[path[common:]] = slots + np.arange(len(path) - common)
            slots += own[numbers[0]]
    return Layout(groups, Lookup(places, slots, device))


def _padded(parts: list[np.ndarray], value: int | None) -> np.ndarray:
    """Return a matrix with a part in each row, then ``value``, or else the part's last number."""
    found = np.empty((len(parts), max(map(len, parts))), dtype=np.int64)
    for row, part in zip(found, parts, strict=True):
        row[: len(part)], row[len(part) :] = part, part[-1] if value is None else value
    return found


def _grouped(numbers: list[int], own: np.ndarray, paths: list[np.ndarray]) -> list[list[int]]:
    """Split rows, sorted by how many queries they have, where that saves more pairs of queries and keys than it costs."""
    keys = np.array([len(paths[n]) for n in numbers])
    count, queries = np.arange(1, len(numbers)), own[numbers]
    left = count * queries[0] * np.maximum.accumulate(keys)[:-1]
    right = count[::-1] * queries[1:] * np.maximum.accumulate(keys[::-1])[::-1][1:]
    saved = len(numbers) * queries[0] * keys.max() - left - right
    if not len(saved) or saved.max() <= GROUP:
        return [numbers]
    at = int(saved.argmax()) + 1
    return _grouped(numbers[:at], own, paths) + _grouped(numbers[at:], own, paths)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    *,
    layout: Layout,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return what the tokens of one sequence find, (1, tokens, heads, size); a trained prefix is ahead of the keys."""
    heads, size, virtual = query.shape[1], query.shape[3], key.shape[2] - query.shape[2]
    table, *tables = (one[0].transpose(0, 1).flatten(1) for one in (query, key, value))
    found = []
    for group in layout.groups:
        mask = group.mask(sliding_window, virtual, query.dtype)
        queries = group.queries(table).unflatten(2, (heads, size)).transpose(1, 2)
        keys, values = (group.keys(virtual)(one).unflatten(2, (key.shape[1], -1)).transpose(1, 2) for one in tables)
        # A GPU's kernels for masks or fp32 don't take fewer heads of keys than of queries.
        if not (on_cpu := query.device.type == "cpu"):
            keys, values = (repeat_kv(one, heads // key.shape[1]) for one in (keys, values))
        each = scaled_dot_product_attention(
            queries, keys, values, mask, dropout, mask is None, scale=scaling, enable_gqa=on_cpu
        )
        found.append(each.transpose(1, 2).flatten(2).flatten(0, 1))
    return layout.places(torch.cat(found)).view(1, -1, heads, value.shape[3]), None


AttentionInterface.register(NAME, attend)
