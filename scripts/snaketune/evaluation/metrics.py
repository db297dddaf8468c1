"""Metrics of each task, by the field's libraries, as sums over test rows.

Every metric is a function of statistics that add up over rows: hits and rows, log-likelihood
and tokens, n-gram matches. A row's statistics are kept beside its prediction, so that an
interval resamples rows by adding, and looks at no text twice.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

Row = dict[str, Any]
NOVELTY_NOTES = 6


@cache
def _sacrebleu(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"chrf": CHRF, "bleu": BLEU}[name]()


def _ratio(sums: np.ndarray) -> Any:
    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] != 0)


def _macro_f1(sums: np.ndarray) -> Any:
    """F1 averaged over the labels that occur, each of equal weight: hits, then predicted + true."""
    half = sums.shape[-1] // 2
    hits, both = sums[..., :half], sums[..., half:]
    each = np.divide(2 * hits, both, out=np.zeros(hits.shape), where=both != 0)
    return each.sum(-1) / np.maximum(1, (both != 0).sum(-1))


def _by_sacrebleu(name: str) -> Callable[[np.ndarray], Any]:
    def value(sums: np.ndarray) -> Any:
        score = _sacrebleu(name)._compute_score_from_stats
        return np.apply_along_axis(lambda one: score(one.astype(int).tolist()).score, -1, sums)

    return value


VALUES: dict[str, Callable[[np.ndarray], Any]] = {
    "macro_f1": _macro_f1,
    "chrf": _by_sacrebleu("chrf"),
    "bleu": _by_sacrebleu("bleu"),
    "perplexity": lambda sums: np.exp(_ratio(sums)),
    "bits_per_byte": lambda sums: _ratio(sums) / math.log(2),
}


def value(metric: str, sums: np.ndarray) -> Any:
    """A metric from its summed statistics: (..., statistics) to (...)."""
    return VALUES.get(metric, _ratio)(np.asarray(sums, dtype=np.float64))


def quality_change(metric: str, before: float, after: float) -> float:
    """How much better a metric has become, as a share: -0.05 is five points of a hundred, or 5 % more perplexity."""
    if metric in ("perplexity", "bits_per_byte"):
        return math.log(before / after)
    return (after - before) / (100 if metric in ("chrf", "bleu") else 1)


def normalised(answer: str) -> list[str]:
    """Words without case, punctuation and articles, as SQuAD compares answers (arXiv 1606.05250)."""
    bare = "".join(character for character in answer.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def word_f1(answer: str, reference: str) -> float:
    """F1 of the words of an answer, SQuAD's."""
    told, expected = normalised(answer), normalised(reference)
    if not told or not expected:
        return float(told == expected)
    common = sum((Counter(told) & Counter(expected)).values())
    return 2 * common / (len(told) + len(expected))


def tags_of(answer: str, tokens: list[str]) -> list[str]:
    """BIO tags that an answer `entity: type; entity: type` gives a sentence's tokens, from left to right."""
    tags = ["O"] * len(tokens)
    for part in answer.split(";"):
        entity, colon, kind = part.rpartition(":")
        words = entity.split()
        if not (colon and words and kind.strip()):
            continue
        for start in range(len(tokens) - len(words) + 1):
            span = slice(start, start + len(words))
            if tokens[span] == words and set(tags[span]) == {"O"}:
                tags[span] = [f"B-{kind.strip()}", *[f"I-{kind.strip()}"] * (len(words) - 1)]
                break
    return tags


def runs_of_notes(tune: str) -> list[tuple[str, ...]]:
    """The runs of notes by which a tune is compared with those of the training rows."""
    from snaketune.data.abc_notation import ngrams

    return ngrams(tune, NOVELTY_NOTES)


def _classification(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    told, true = row["prediction"], row["reference"]
    hits = [float(label == told == true) for label in decoding["candidates"]]
    both = [float(label == told) + float(label == true) for label in decoding["candidates"]]
    return {"accuracy": [float(told == true), 1], "macro_f1": hits + both}


def _tagging(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    from seqeval.metrics.sequence_labeling import get_entities

    told = set(get_entities(tags_of(row["prediction"], row["reference"]["tokens"])))
    true = set(get_entities(row["reference"]["tags"]))
    return {"entity_f1": [2 * len(told & true), len(told) + len(true)]}


def _translation(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    told, true = row["prediction"].strip(), row["reference"]
    counts = {name: _sacrebleu(name)._extract_corpus_statistics([told], [[true]])[0] for name in ("chrf", "bleu")}
    return {**counts, "exact_match": [float(told == true), 1]}


def _qa(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    told = row["prediction"]
    exact = any(normalised(told) == normalised(true) for true in row["reference"])
    return {"f1": [max(word_f1(told, true) for true in row["reference"]), 1], "exact_match": [float(exact), 1]}


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def _chat(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    overlap = _rouge().score(row["reference"], row["prediction"])["rougeL"].fmeasure
    return {"rouge_l": [overlap, 1], "chat_format": [float(row["well_formed"]), 1]}


def _generation(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    from snaketune.data.abc_notation import measure, ngrams

    tune, pairs, runs = row["prediction"], ngrams(row["prediction"], 2), runs_of_notes(row["prediction"])
    found = measure(row["prompt"], tune)
    known = decoding["known"]
    return {
        "abc_validity": [float(found["valid"]), 1],
        "full_bars": [found["full_bars"], found["bars"]],
        "distinct_2": [len(set(pairs)), len(pairs)],
        "novelty": [sum(run not in known for run in runs), len(runs)],
    }


OF_TASK = {
    "classification": _classification,
    "tagging": _tagging,
    "translation": _translation,
    "qa": _qa,
    "chat": _chat,
    "generation": _generation,
}


def statistics(task: str, row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    """The statistics of each metric of one row.

    Args:
        task: the scenario's.
        row: reference, prediction, negative log-likelihood (nats) and count of the answer's tokens, …
        decoding: labels, and the notes of the training tunes under ``known``.
    """
    found = {"perplexity": [row["nll"], row["answer_tokens"]]}
    if task == "language-modeling":
        return found | {"bits_per_byte": [row["nll"], row["bytes"]]}
    return found | OF_TASK[task](row, decoding)
