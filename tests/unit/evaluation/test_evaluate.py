"""What evaluation keeps of each test row, with a model that finds every token equally likely."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.measurements import run_script
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import evaluate
from snaketune.core.errors import UserError
from snaketune.core.layout import GENAI_FILES, ONNX_FILES
from snaketune.core.manifest import record
from snaketune.data.tokens import Rows
from snaketune.evaluation.metrics import value
from snaketune.inference.onnx_backend import OnnxBackend

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
END = len(LETTERS)


class Uniform:
    """Finds every token equally likely; asked for the greedy one, says the letters of a word, then the end."""

    shares_within, pads = 0, True

    def __init__(self, word: str = "", logit: float = 0.0):
        self.word, self.logit = [LETTERS.index(letter) for letter in word], logit

    def forward(self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        said = 0 if past is None else past + ids.shape[1]
        logits = np.full((len(ids), ids.shape[1], len(LETTERS) + 1), self.logit)
        if self.word or past is not None:
            logits[:, -1, [*self.word, END][min(said, len(self.word))]] = 1e-9
        return logits[:, -keep:], said

    def branch(self, ids: np.ndarray, past: Any, mask: np.ndarray | None = None) -> np.ndarray:
        return self.forward(ids, past, ids.shape[1])[0]

    def repeat(self, past: Any, rows: int) -> Any:
        return past


DECODING: dict[str, Any] = {"candidates": {}, "end": [END], "training": []}


@pytest.fixture
def tokenizer() -> Tokenizer:
    """One token a byte, and one that ends an answer."""
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(LETTERS)}, []))
    made.add_special_tokens(["<|end|>"])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def predicted(
    tokenizer: Tokenizer, rows: list[dict[str, Any]], tokens: Rows, word: str = "", **recipe: Any
) -> list[dict[str, Any]]:
    told = {"max_new_tokens": None, "truncated": 0, "gate": "warn"} | recipe
    return evaluate.predictions(Uniform(word), tokens, rows, tokenizer, DECODING, told)


def test_the_pieces_of_a_text_are_one_row(tokenizer: Tokenizer) -> None:
    text = "Ein Läufer überholt den Zweiten."
    ids = np.array([END, *tokenizer.encode(text).ids, END])
    pieces = [ids[:20], ids[19:], ids[:2]]
    tokens = Rows(pieces, [np.arange(len(piece)) > 0 for piece in pieces])
    rows = [{"id": "1", "text": text, "pieces": 2}, {"id": "2", "text": "E", "pieces": 1}]
    found = predicted(tokenizer, rows, tokens, task="language-modeling")
    assert [row["id"] for row in found] == ["1", "2"]
    assert [row["answer_tokens"] for row in found] == [len(ids) - 1, 1]
    assert found[0]["statistics"]["bits_per_byte"] == [found[0]["nll"], len(text.encode())]
    assert value("perplexity", np.array(found[0]["statistics"]["perplexity"])) == pytest.approx(len(LETTERS) + 1)


@pytest.mark.parametrize(("limit", "well_formed"), [(None, True), (8, True), (2, False)])
def test_a_greedy_answer_ends_with_its_end_token_or_is_ill_formed(
    tokenizer: Tokenizer, limit: int | None, well_formed: bool
) -> None:
    ids = np.array(tokenizer.encode("ab").ids + tokenizer.encode("cat").ids + [END])
    tokens = Rows([ids], [np.arange(len(ids)) > 1])
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cat"}]
    rows = [{"id": "1", "messages": messages, "reference": "cat"}]
    [row] = predicted(tokenizer, rows, tokens, "cat", task="chat", max_new_tokens=limit)
    assert row["prediction"] == "cat"[:limit]
    assert row["well_formed"] == well_formed
    assert row["statistics"]["chat_format"] == [float(well_formed), 1]
    assert row["answer_tokens"] == 4
    if not well_formed:
        with pytest.raises(UserError, match="1 of 1 references are longer than `max_new_tokens: 2`"):
            predicted(tokenizer, rows, tokens, task="chat", max_new_tokens=limit, gate="fail")


@pytest.mark.parametrize(("reference", "well_formed"), [("cat", True), ("at", False)])
def test_a_special_token_may_be_answered_if_the_reference_has_it(
    tokenizer: Tokenizer, reference: str, well_formed: bool
) -> None:
    tokenizer.add_special_tokens(["c"])
    ids = np.array([*tokenizer.encode("ab" + reference).ids, END])
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": reference}]
    rows = [{"id": "1", "messages": messages, "reference": "at"}]
    [row] = predicted(tokenizer, rows, Rows([ids], [np.arange(len(ids)) > 1]), "cat", task="chat", max_new_tokens=4)
    assert (row["prediction"], row["well_formed"]) == ("at", well_formed)


def test_a_likelihood_that_is_no_number_is_refused_with_its_row(
    tokenizer: Tokenizer, recwarn: pytest.WarningsRecorder
) -> None:
    rows = Rows([np.array([END, 1, 2])], [np.arange(3) > 0])
    recipe = {"task": "language-modeling"}
    with pytest.raises(UserError, match="row 7: the negative log-likelihood of its answer is nan, expected a finite"):
        evaluate.predictions(Uniform(logit=np.inf), rows, [{"id": "7", "text": "ab"}], tokenizer, DECODING, recipe)
    assert not recwarn.list


@pytest.mark.parametrize("names", [ONNX_FILES, GENAI_FILES], ids=["onnx", "genai"])
def test_half_written_weights_are_refused_before_they_are_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    model, figures = tmp_path / "model", tmp_path / "evaluation/onnx-int8.json"
    model.mkdir()
    for name in names:
        (model / name).write_bytes(b"0123456789")
    record(model, {}, [], [model / name for name in names])
    (model / "model.onnx_data").write_bytes(b"01234")
    told = ["--model", model / "model.onnx", "--tokens-directory", tmp_path, "--output", figures]
    with pytest.raises(UserError, match=r"model\.onnx_data has changed since it was made .* run snakemake"):
        run_script(evaluate, "--recipe", "{}", *told)
    assert not figures.parent.exists()


def test_an_execution_provider_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"CUDAExecutionProvider isn't in this onnxruntime \(it has .*CPU"):
        OnnxBackend(tmp_path / "model.onnx", 1, provider="CUDAExecutionProvider")
