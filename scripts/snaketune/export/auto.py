"""Choose the bits of each kind of layer: the smallest model whose loss on validation rows is within a budget.

Quantizing one kind moves the logits by little, and what several kinds add is nearly independent, so their divergences
about add up. The sum only orders what is tried: what is returned has been measured whole, on the rows it is chosen by.
Test rows play no part.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime

from snaketune.core.errors import UserError
from snaketune.data.tokens import read_rows
from snaketune.export import int4
from snaketune.export.calibration import Feeds
from snaketune.export.mixed_bits import KINDS, MixedBits, weight_bytes

# Of an answer, as many tokens as are compared: their logits are held for all rows.
ANSWER_TOKENS = 16
LEAST_ROWS = 8
DRAWS, CONFIDENCE, SEED = 2000, 0.95, 20240724
# Losses by their name in the budget, in this order.
LOSSES = ("kl_divergence", "lost_answers")

Answers = list[tuple[np.ndarray, np.ndarray]]
Loss = dict[str, tuple[float, float]]


class Choice(NamedTuple):
    """Bits of each kind, the loss that they should have, and the bytes of the model's constants."""

    bits: dict[str, int]
    predicted: float
    bytes: int


def validation_rows(directory: Path, count: int) -> Answers:
    """Return token ids and places of answer tokens of the first ``count`` rows of the validation split.

    Raises:
        UserError: there are too few rows with an answer to tell a loss by.
    """
    path = directory / "validation.safetensors"
    rows = read_rows(path)
    found = [
        (ids, places)
        for ids, answer in zip(rows.ids, rows.answers, strict=True)
        if len(places := np.flatnonzero(answer[1:]) + 1)
    ][:count]
    if len(found) < LEAST_ROWS:
        raise UserError(
            f"{path}: {len(found)} rows with an answer, but verifying a budget takes at least {LEAST_ROWS}: provide more validation rows, or choose a precision with fixed bits"
        )
    return [(ids, places[:ANSWER_TOKENS]) for ids, places in found]


class Judge:
    """The fp32 model's answers to validation rows, and how far another model is from them."""

    def __init__(self, source: Path, rows: Answers):
        self.source, self.rows = source, rows
        self.parent = list(self._logits(source))
        self.right = [self._is_right(i, logits) for i, logits in enumerate(self.parent)]
        drawn = np.random.default_rng(SEED)
        self.draws = drawn.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=DRAWS).astype(np.float64)

    def loss(self, model: onnx.ModelProto) -> Loss:
        """Return each of LOSSES with the upper end of its interval, by bootstrap over rows.

        ``kl_divergence`` is the mean over answer tokens of KL(parent || model), in nats; ``lost_answers`` the share of
        rows whose answer the parent's likeliest tokens are, less the model's share, paired by row.
        """
        path, data = (self.source.with_name(f"candidate.{end}") for end in ("onnx", "onnx_data"))
        # Saved beside an earlier one, it would be appended.
        data.unlink(missing_ok=True)
        onnx.save_model(model, str(path), save_as_external_data=True, location=data.name)
        apart, places, lost = (np.zeros(len(self.rows)) for _ in range(3))
        for i, (child, parent) in enumerate(zip(self._logits(path), self.parent, strict=True)):
            p, q = log_probabilities(parent), log_probabilities(child)
            apart[i], places[i] = (np.exp(p) * (p - q)).sum(), len(p)
            lost[i] = float(self.right[i]) - float(self._is_right(i, child))
        found: Loss = {}
        for name, over, count in zip(LOSSES, (apart, lost), (places, np.ones(len(lost))), strict=True):
            drawn = float(np.quantile(self.draws @ over / (self.draws @ count), (1 + CONFIDENCE) / 2))
            mean = over.sum() / count.sum()
            if not lost.any() and name == "lost_answers":
                # Resampling rows that all agree shows no spread: the rule of three (Hanley and Lippman-Hand 1983).
                drawn = 3 / len(lost)
            # Not a number is over every budget.
            found[name] = (
                (rounded(mean), rounded(max(drawn, mean))) if np.isfinite(over).all() else (math.inf, math.inf)
            )
        return found

    def _is_right(self, row: int, logits: np.ndarray) -> bool:
        ids, answer = self.rows[row]
        return bool((logits.argmax(-1) == ids[answer]).all())

    def _logits(self, path: Path) -> Iterator[np.ndarray]:
        """Yield the logits that choose the answer tokens of each row: (tokens, vocabulary)."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # What the job asks for; sums of several threads differ in the last digits too.
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(path, load_external_data=False).graph
        feeds = Feeds(graph, [ids for ids, _ in self.rows])
        for feed, (_, places) in zip(iter(feeds.get_next, None), self.rows, strict=True):
            yield session.run(["logits"], feed)[0][0, places - 1]


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def rounded(value: float) -> float:
    """Return three digits: sums of other processors differ after some more."""
    return float(f"{value:.3g}")


def quantize(
    source: Path, options: dict[str, Any], rows: list[np.ndarray], validation: Answers
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return the smallest model within the budget, and what it was chosen by.

    Args:
        rows: training rows, which only gptq reads.

    Raises:
        UserError: no choice of bits is within the budget; names the one that loses least. Or fp32 has too few answers
            that could be lost.
    """
    judge = Judge(source, validation)
    [(name, budget)] = ((name, options["budget"][name]) for name in LOSSES if options["budget"][name] is not None)
    if name == "lost_answers" and sum(judge.right) < LEAST_ROWS:
        raise UserError(
            f"lost_answers: fp32 gets {sum(judge.right)} of {len(validation)} validation rows right, but this budget takes at least {LEAST_ROWS}: give kl_divergence in `budget` instead, or raise `validation_rows`"
        )
    at_8_bits = options | {"algorithm": "rtn", "symmetric": True}
    copies = {
        bits: int4.quantize(source, options if bits == 4 else at_8_bits, rows, bits)
        for bits in options["bits"]
        if bits != 32
    }
    mixed = MixedBits(source, copies)
    kinds = [kind for kind in KINDS if kind in mixed.kinds.values()]
    fp32 = weight_bytes(mixed.model({}))
    single, saved = dict[str, dict[int, Loss]](), dict[str, dict[int, int]]()
    for kind in kinds:
        alone = {bits: mixed.model({kind: bits}) for bits in copies}
        single[kind] = {bits: judge.loss(model) for bits, model in alone.items()}
        saved[kind] = {32: 0} | {bits: fp32 - weight_bytes(model) for bits, model in alone.items()}
    choices = [
        Choice(
            dict(zip(kinds, bits, strict=True)),
            sum(max(single[kind][one][name][0], 0) for kind, one in zip(kinds, bits, strict=True) if one != 32),
            fp32 - sum(saved[kind][one] for kind, one in zip(kinds, bits, strict=True)),
        )
        for bits in itertools.product(sorted({*options["bits"]}), repeat=len(kinds))
    ]
    proofs = []
    for choice in in_order(choices, budget):
        proof = judge.loss(mixed.model(choice.bits))
        proofs.append((proof[name], choice.bits))
        if proof[name][1] <= budget:
            return mixed.model(choice.bits, load=True), {
                "bits": choice.bits,
                "sensitivity": {
                    kind: {str(bits): told(loss) for bits, loss in of.items()} for kind, of in single.items()
                },
                "predicted": {name: rounded(choice.predicted)},
                "proven": told(proof),
                "tried": len(proofs),
                "validation_rows": len(validation),
            }
    (least, upper), best = min(proofs, key=lambda proof: proof[0])
    raise UserError(
        f"no choice of bits is within the budget of {name} {budget:g}: the smallest loss is {least:g} (up to {upper:g}), with {', '.join(f'{kind} {many}' for kind, many in best.items())}. Raise `budget`, add 32 to `bits`, or choose a smaller `block_size`"
    )


def in_order(choices: list[Choice], budget: float) -> list[Choice]:
    """Return what to try: all that should be within the budget, the smallest first; or else what should lose least."""
    within = [one for one in choices if one.predicted <= budget]
    best = min(choices, key=lambda one: (one.predicted, one.bytes, *one.bits.values()))
    return sorted(within, key=lambda one: (one.bytes, one.predicted, *one.bits.values())) or [best]


def told(loss: Loss) -> dict[str, dict[str, float]]:
    return {name: {"mean": mean, "upper": upper} for name, (mean, upper) in loss.items()}
