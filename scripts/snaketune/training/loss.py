"""The loss over answers, with at most so many logits in memory at once."""

from typing import Any

import torch
from transformers import PreTrainedModel

from snaketune.data.tokens import Rows
from snaketune.training.batches import IGNORED, collate, cut
from snaketune.training.params import LOGITS_AT_ONCE, VALIDATION_ROWS, VALIDATION_TOKENS
from snaketune.training.shared_prompts import FAMILIES, NAME


def answer_loss(
    model: torch.nn.Module,
    inputs: dict[str, Any],
    targets: torch.Tensor,
    smoothing: float = 0.0,
    skip_logits: bool = True,
) -> torch.Tensor:
    """Return the summed negative log-likelihood of the completion tokens, in nats.

    ``smoothing`` is the share of each target that is spread evenly over the vocabulary (arXiv 1512.00567).

    Targets are (rows, k - 1) for the last k logits but one, or those of rows in one sequence, (positions, most of one).
    Where all logits together are too many, they are computed for the completion tokens alone, in chunks.
    Without ``skip_logits``, those of all positions are computed at once.
    """
    # Below peft's, DDP's or DeepSpeed's wrappers.
    causal = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    in_sequence = "layout" in inputs
    if causal.config.model_type in FAMILIES:
        # Until the backward pass, which may compute blocks again.
        causal.config._attn_implementation = NAME if in_sequence else "sdpa"
    labels = targets if in_sequence else targets.flatten()[:, None]

    def predicting(found: torch.Tensor) -> torch.Tensor:
        """Take from what there is of all positions that of the targets'."""
        return found[0, inputs["logits_to_keep"]] if in_sequence else found[:, -targets.shape[1] - 1 : -1].flatten(0, 1)

    if not skip_logits:
        return _cross_entropy(predicting(model(**{**inputs, "logits_to_keep": 0}).logits), labels, smoothing)
    if len(labels) * causal.config.get_text_config().vocab_size <= LOGITS_AT_ONCE:
        logits = model(**inputs).logits
        return _cross_entropy(logits[0] if in_sequence else logits[:, :-1].flatten(0, 1), labels, smoothing)
    losses: list[torch.Tensor] = []

    def compute(decoder: torch.nn.Module, _: Any, output: Any) -> None:
        hidden, learnt = output.last_hidden_state, (labels != IGNORED).any(1)
        losses.append(_chunked_loss(causal, output, predicting(hidden)[learnt], labels[learnt], smoothing))
        # What the head then computes as usual is one position, which nothing reads.
        output.last_hidden_state = hidden[:, -1:]

    # Within the forward pass, so that autocast and the wrappers' gathering of weights apply.
    hook = causal.base_model.register_forward_hook(compute)
    try:
        model(**{**inputs, "logits_to_keep": 1})
    finally:
        hook.remove()
    return losses[0]


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the summed loss of logits (positions, vocabulary); a position may have several labels."""
    if labels.shape[1] == 1:
        return torch.nn.functional.cross_entropy(
            logits.float(), labels[:, 0], ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
        )
    likely = logits.float().log_softmax(-1)
    found = likely.gather(1, labels.clamp(min=0))
    if smoothing:
        found = (1 - smoothing) * found + smoothing * likely.mean(-1, keepdim=True)
    return -found[labels != IGNORED].sum()


class _Head:
    """A causal language model whose decoder returns its output with given hidden states: what remains is the family's head.

    Gemma caps its logits and Granite scales them, for example; mixtures of experts read more of the output.
    """

    def __init__(self, model: PreTrainedModel, output: Any, hidden: torch.Tensor):
        self.model_with_head = model
        given = type(output)(**{**output, "last_hidden_state": hidden})
        setattr(self, model.base_model_prefix, lambda *_, **__: given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model_with_head, name)

    def logits(self) -> torch.Tensor:
        found: torch.Tensor = type(self.model_with_head).forward(self).logits
        return found


def _chunked_loss(
    causal: PreTrainedModel, output: Any, hidden: torch.Tensor, labels: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Return the loss of hidden states (positions, width); the backward pass computes the logits of a chunk again."""

    def loss(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _cross_entropy(_Head(causal, output, hidden[None]).logits()[0], labels, smoothing)

    size = max(1, LOGITS_AT_ONCE // causal.config.get_text_config().vocab_size)
    parts = zip(hidden.split(size), labels.split(size), strict=True)
    return torch.stack([torch.utils.checkpoint.checkpoint(loss, *part, use_reentrant=False) for part in parts]).sum()


@torch.no_grad()
def mean_loss(
    model: torch.nn.Module,
    rows: Rows,
    pad: int,
    device: torch.device,
    most_rows: int = VALIDATION_ROWS,
    most_tokens: float = VALIDATION_TOKENS,
    shared: bool = False,
    skip_logits: bool = True,
) -> float:
    """Return the mean negative log-likelihood per completion token, in nats."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda row: len(rows.ids[row]))
    parts = cut(order, rows, most_rows, most_tokens, shared)
    batches = (collate(rows, part, pad, device, shared) for part in parts)
    total = sum(float(answer_loss(model, *batch, skip_logits=skip_logits)) for batch in batches)
    model.train()
    return total / rows.answer_tokens(order)
