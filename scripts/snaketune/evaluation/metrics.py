"""Metrics of each task, by the field's libraries, as sums over test rows.

Every metric is a function of statistics that add up over rows: hits and rows, log-likelihood
and tokens, n-gram matches. A row's statistics are stored with its prediction, so that a confidence
interval resamples rows by adding, and no text is scored twice.
"""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from snaketune.data.words import spaced, words

Row = dict[str, Any]
NOVELTY_NOTES = 6


@cache
def _sacrebleu(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # Of texts that are all shorter than four words, BLEU counts the n-grams that there are.
    return CHRF() if name == "chrf" else BLEU(effective_order=True)


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)


def _ratio(sums: np.ndarray) -> Any:
    return _divided(sums[..., 0], sums[..., 1])


def _macro_f1(sums: np.ndarray) -> Any:
    """F1 averaged over the labels that occur, each of equal weight: hits, then predicted + true."""
    hits, both = np.split(sums, 2, axis=-1)
    return _divided(2 * hits, both).sum(-1) / np.maximum(1, (both != 0).sum(-1))


def _by_sacrebleu(name: str, sums: np.ndarray) -> Any:
    score = _sacrebleu(name)._compute_score_from_stats
    return np.apply_along_axis(lambda one: score(one.astype(int).tolist()).score, -1, sums)


VALUES: dict[str, Callable[[np.ndarray], Any]] = {
    "macro_f1": _macro_f1,
    "chrf": partial(_by_sacrebleu, "chrf"),
    "bleu": partial(_by_sacrebleu, "bleu"),
    "perplexity": lambda sums: np.exp(_ratio(sums)),
    "bits_per_byte": lambda sums: _ratio(sums) / math.log(2),
}


def value(metric: str, sums: np.ndarray) -> Any:
    """Compute a metric from its summed statistics: (..., statistics) to (...)."""
    return VALUES.get(metric, _ratio)(np.asarray(sums, dtype=np.float64))


def quality_change(metric: str, before: float, after: float) -> float:
    """Return the improvement of a metric as a share: -0.05 is five points of a hundred, or 5 % more perplexity."""
    if metric in ("perplexity", "bits_per_byte"):
        return math.log(before / after)
    return (after - before) / (100 if metric in ("chrf", "bleu") else 1)


def normalised(answer: str) -> list[str]:
    """Return the words without case, punctuation and articles, as SQuAD compares answers (arXiv 1606.05250).

    Punctuation of any script is left out, and letters of scripts without spaces are words, as in MLQA (arXiv 1910.07475).
    """
    kept = unicodedata.normalize("NFC", answer).lower()
    bare = "".join(one for one in kept if one not in string.punctuation and unicodedata.category(one)[0] != "P")
    return spaced(re.sub(r"\b(a|an|the)\b", " ", bare)).split()


def word_f1(answer: str, reference: str) -> float:
    """Compute the F1 of an answer's words, as SQuAD does."""
    predicted, expected = normalised(answer), normalised(reference)
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))


def tags_of(answer: str, tokens: list[str]) -> list[str]:
    """Tag a sentence's tokens (BIO) from left to right as an answer `entity: type; entity: type` says."""
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


@cache
def _runs_of_notes(tunes: tuple[str, ...]) -> set[tuple[str, ...]]:
    from snaketune.data.abc_notation import ngrams

    return {run for tune in tunes for run in ngrams(tune, NOVELTY_NOTES)}


def _classification(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    label, true = row["prediction"], row["reference"]
    hits = [float(one == label == true) for one in decoding["candidates"]]
    both = [float(one == label) + float(one == true) for one in decoding["candidates"]]
    return {"accuracy": [float(label == true), 1], "macro_f1": hits + both}


def _tagging(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    from seqeval.metrics.sequence_labeling import get_entities

    found = set(get_entities(tags_of(row["prediction"], row["reference"]["tokens"])))
    true = set(get_entities(row["reference"]["tags"]))
    return {"entity_f1": [2 * len(found & true), len(found) + len(true)]}


def _translation(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    target, true = row["prediction"].strip(), row["reference"]
    chrf = _sacrebleu("chrf")._extract_corpus_statistics([target], [[true]])[0]
    bleu = _sacrebleu("bleu")._extract_corpus_statistics([spaced(target)], [[spaced(true)]])[0]
    return {"chrf": chrf, "bleu": bleu, "exact_match": [float(target == true), 1]}


def _qa(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    answer, references = row["prediction"], row["reference"]
    exact = normalised(answer) in map(normalised, references)
    return {"f1": [max(word_f1(answer, true) for true in references), 1], "exact_match": [float(exact), 1]}


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    # Its own tokenizer knows a to z only.
    return RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=words))


def _chat(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    answer, true = row["prediction"], row["reference"]
    # An answer may hold no word: 👍.
    exact = answer.strip() == true.strip()
    overlap = 1.0 if exact else _rouge().score(true, answer)["rougeL"].fmeasure
    return {"rouge_l": [overlap, 1], "chat_format": [float(row["well_formed"]), 1]}


def _language_modeling(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    return {"bits_per_byte": [row["nll"], row["bytes"]]}


def _generation(row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    from snaketune.data.abc_notation import measure, ngrams

    tune, pairs, runs = (row["prediction"], *(ngrams(row["prediction"], n) for n in (2, NOVELTY_NOTES)))
    found, known = measure(row["prompt"], tune), _runs_of_notes(decoding["training"])
    return {
        "abc_validity": [float(found["valid"]), 1],
        "full_bars": [found["full_bars"], found["bars"]],
        "distinct_2": [len(set(pairs)), len(pairs)],
        "novelty": [sum(run not in known for run in runs), len(runs)],
    }


TASKS = {
    "classification": _classification,
    "tagging": _tagging,
    "translation": _translation,
    "qa": _qa,
    "chat": _chat,
    "language-modeling": _language_modeling,
    "generation": _generation,
}


def statistics(task: str, row: Row, decoding: dict[str, Any]) -> dict[str, list[float]]:
    """Return the statistics of each metric for one row.

    Args:
        row: reference, prediction and prompt; negative log-likelihood (nats) and count of the completion
            tokens, unless a service answered, which gives no likelihood; bytes of a plain text.
        decoding: the labels under ``candidates``, and under ``training`` the references of the training
            rows if novelty is measured.
    """
    found = {"perplexity": [row["nll"], row["answer_tokens"]]} if "nll" in row else {}
    return found | TASKS[task](row, decoding)


def summed(rows: list[Row]) -> dict[str, float]:
    """Compute each metric over rows with their ``statistics``."""
    return {
        name: float(value(name, np.sum([row["statistics"][name] for row in rows], axis=0)))
        for name in rows[0]["statistics"]
    }
