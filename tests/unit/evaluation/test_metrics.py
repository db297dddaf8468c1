"""Metrics from sums over rows equal the libraries' over all rows at once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import accuracy_score, f1_score
from torchmetrics.functional.text import squad

from snaketune.evaluation.metrics import statistics, tags_of, value, word_f1

LABELS = ["a", "b", "c", "d"]
WORDS = st.lists(st.sampled_from(["the", "cat", "Sat", "on.", "a", "mat", "é"]), max_size=7).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS.filter(str.strip)), min_size=1, max_size=8)


def found(task: str, rows: list[dict[str, Any]], **decoding: Any) -> dict[str, float]:
    """Every metric of a task over some rows."""
    likely = {"nll": 1.0, "answer_tokens": 2, "bytes": 3, "well_formed": True}
    each = [statistics(task, likely | row, decoding) for row in rows]
    return {name: float(value(name, np.sum([one[name] for one in each], axis=0))) for name in each[0]}


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_classification_equals_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    told, true = zip(*pairs, strict=True)
    rows = [{"prediction": a, "reference": b} for a, b in pairs]
    metrics = found("classification", rows, candidates=dict.fromkeys(LABELS))
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, told))
    assert metrics["macro_f1"] == pytest.approx(f1_score(true, told, average="macro", zero_division=0))


TAGS = st.lists(st.sampled_from(["O", "B-class", "I-class", "B-module", "I-module"]), min_size=1, max_size=8)


def answer_of(tokens: list[str], tags: list[str]) -> str:
    """The answer that names the entities of some tags, which are well-formed."""
    parts: list[str] = []
    for token, tag in zip(tokens, tags, strict=True):
        if tag.startswith("B-"):
            parts.append(f"{token}: {tag[2:]}")
        elif tag.startswith("I-"):
            entity, _, kind = parts[-1].rpartition(": ")
            parts[-1] = f"{entity} {token}: {kind}"
    return "; ".join(parts) or "none"


def well_formed(tags: list[str]) -> list[str]:
    return [
        tag if not tag.startswith("I-") or (before != "O" and before[2:] == tag[2:]) else "O"
        for before, tag in zip(["O", *tags], tags, strict=False)
    ]


def repaired(tags: list[str]) -> list[str]:
    while (again := well_formed(tags)) != tags:
        tags = again
    return tags


@given(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6))
def test_entities_equal_seqevals(pairs: list[tuple[list[str], list[str]]]) -> None:
    rows, told, true = [], [], []
    for gold, guess in pairs:
        length = min(len(gold), len(guess))
        gold, guess = repaired(gold[:length]), repaired(guess[:length])
        tokens = [f"w{n}" for n in range(length)]
        rows.append({"prediction": answer_of(tokens, guess), "reference": {"tokens": tokens, "tags": gold}})
        assert tags_of(answer_of(tokens, guess), tokens) == guess
        told.append(guess)
        true.append(gold)
    expected = entity_f1(true, told, zero_division=0)
    assert found("tagging", rows)["entity_f1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ("none", "O O O O"),
        ("", "O O O O"),
        ("Tensor: class", "B-class O O O"),
        ("Tensor: class; Tensor: class", "B-class O O B-class"),
        ("Tensor of: class; of: module", "B-class I-class O O"),
        ("Tensor; : class; of:; missing: class", "O O O O"),
        ("of size: x y", "O B-x y I-x y O"),
    ],
)
def test_an_answer_tags_each_entity_once_from_the_left(answer: str, tags: str) -> None:
    expected = ["O", "B-x y", "I-x y", "O"] if "x y" in tags else tags.split()
    assert tags_of(answer, ["Tensor", "of", "size", "Tensor"]) == expected


@given(PAIRS)
@settings(deadline=None)
def test_translation_equals_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    told, true = ([pair[i].strip() for pair in pairs] for i in (0, 1))
    metrics = found("translation", [{"prediction": a, "reference": b} for a, b in zip(told, true, strict=True)])
    assert metrics["chrf"] == pytest.approx(CHRF().corpus_score(told, [true]).score)
    assert metrics["bleu"] == pytest.approx(BLEU().corpus_score(told, [true]).score)
    assert metrics["exact_match"] == pytest.approx(np.mean([a == b for a, b in zip(told, true, strict=True)]))


@given(PAIRS)
@settings(deadline=None)
def test_answers_equal_squads(pairs: list[tuple[str, str]]) -> None:
    metrics = found("qa", [{"prediction": a, "reference": [b]} for a, b in pairs])
    told = [{"prediction_text": a, "id": str(n)} for n, (a, _) in enumerate(pairs)]
    true = [{"answers": {"answer_start": [0], "text": [b]}, "id": str(n)} for n, (_, b) in enumerate(pairs)]
    expected = squad(told, true)
    assert 100 * metrics["f1"] == pytest.approx(float(expected["f1"]), rel=1e-5)
    assert 100 * metrics["exact_match"] == pytest.approx(float(expected["exact_match"]), rel=1e-5)


def test_the_best_of_several_answers_counts() -> None:
    assert found("qa", [{"prediction": "the cat", "reference": ["dog", "Cat."]}]) == {
        "perplexity": pytest.approx(np.exp(0.5)),
        "f1": 1,
        "exact_match": 1,
    }
    assert word_f1("", "") == 1


@given(PAIRS)
@settings(deadline=None)
def test_overlap_equals_rouge(pairs: list[tuple[str, str]]) -> None:
    scorer = RougeScorer(["rougeL"])
    expected = np.mean([scorer.score(true, told)["rougeL"].fmeasure for told, true in pairs])
    rows = [{"prediction": told, "reference": true} for told, true in pairs]
    assert found("chat", rows)["rouge_l"] == pytest.approx(expected)


def test_perplexity_and_bits_are_of_all_tokens_and_bytes_together() -> None:
    rows = [{"nll": 2.0, "answer_tokens": 1, "bytes": 4}, {"nll": 4.0, "answer_tokens": 5, "bytes": 8}]
    assert found("language-modeling", rows) == {
        "perplexity": pytest.approx(np.exp(6 / 6)),
        "bits_per_byte": pytest.approx(6 / 12 / np.log(2)),
    }


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "chrf", "bleu", "perplexity", "bits_per_byte"])
def test_many_sums_at_once_give_what_each_gives(metric: str) -> None:
    width = {"macro_f1": 6, "chrf": 18, "bleu": 10}.get(metric, 2)
    sums = np.sort(np.random.default_rng(0).integers(1, 30, size=(5, width)), axis=1)
    np.testing.assert_allclose(value(metric, sums), [value(metric, one) for one in sums])
