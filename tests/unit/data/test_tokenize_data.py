"""Rows become the tokens that training and inference both see."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

import tokenize_data
from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, write_json, write_jsonl
from snaketune.core.layout import MODEL_FILES, SPLITS
from snaketune.data.chat_rendering import text_tokens
from snaketune.data.chat_template import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS
from snaketune.data.tokens import read_rows

# Writes an empty block of reasoning into the last answer only.
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RECIPE = {"max_tokens": 40, "truncated": 0.0, "gate": "fail", "novelty": False}


BASE = Path("model/base")
DATA = Path("data")


@pytest.fixture(autouse=True)
def _in_a_directory_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    BASE.mkdir(parents=True)
    make_model(CHAT_TEMPLATE)


def record_model() -> None:
    manifest.record(BASE, {}, [], [BASE / name for name in MODEL_FILES[1:]])


def make_model(template: str) -> None:
    """Its tokenizer has one token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(BASE / "tokenizer.json"))
    special = {"bos_token": PAD, "eos_token": END, "pad_token": PAD, "model_max_length": 100}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    write_json(BASE / "tokenizer_config.json", kind | special)
    write_json(BASE / "config.json", {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 90})
    write_json(BASE / "generation_config.json", {"eos_token_id": [tokenizer.token_to_id(END)]})
    record_model()


def decode(ids: Any) -> str:
    return str(AutoTokenizer.from_pretrained(BASE).decode(ids))


def dialogue(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def tokenized(rows: list[dict[str, Any]], limit: int | None = None, labels: Sequence[str] = (), **changes: Any) -> Path:
    """Tokenize the same rows as every split; returns the output directory."""
    for split in SPLITS:
        write_jsonl(DATA / f"{split}.jsonl", rows)
    write_json(DATA / "card.json", {"labels": labels, "answers": [f"It is {label}" for label in labels]})
    manifest.record(DATA, {}, [], [*(DATA / f"{split}.jsonl" for split in SPLITS), DATA / "card.json"])
    arguments = ["--recipe", json.dumps(RECIPE | changes), "--base-directory", BASE, "--data-directory", DATA]
    arguments += ["--output-directory", "tokens", "--max-new-tokens", *([limit] if limit else [])]
    with mock.patch.object(sys, "argv", ["tokenize_data", *map(str, arguments)]):
        tokenize_data.main()
    return Path("tokens")


def refused(message: str, rows: list[dict[str, Any]], **changes: Any) -> None:
    with pytest.raises(UserError, match=message):
        tokenized(rows, **changes)
    assert not list(Path("tokens").rglob("*"))


@pytest.mark.parametrize("longest", [40, 5, 4, 2])
def test_a_plain_text_is_cut_into_pieces_and_every_token_is_predicted_once(longest: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    pieces = text_tokens(tokenizer, "abcdefg", longest)
    assert max(len(ids) for ids, _ in pieces) == min(longest, 9)
    asked = [token for ids, answers in pieces for token, told in zip(ids, answers, strict=True) if told]
    assert tokenizer.decode(asked) == f"abcdefg{END}"
    assert [ids[0] for ids, _ in pieces] == [tokenizer.bos_token_id, *(ids[-1] for ids, _ in pieces[:-1])]


def test_nothing_of_a_long_text_is_lost() -> None:
    out = tokenized([{"id": "long", "text": "ab" * 50}, {"id": "short", "text": "c"}])
    assert len(read_rows(out / "training/train.safetensors")) == 4
    assert [(row["id"], row["pieces"]) for row in read_jsonl(out / "test/test.jsonl")] == [("long", 3), ("short", 1)]
    assert read_json(out / "test/card.json")["splits"]["test"]["lost_answer_tokens"] == 0


def test_what_evaluation_needs_is_beside_the_rows() -> None:
    rows = [{"id": "1", "messages": dialogue("?", "It is a"), "reference": "a"}]
    out = tokenized(rows, labels=["a", "b"])
    decoding = read_json(out / "test/decoding.json")
    assert {label: decode(ids) for label, ids in decoding["candidates"].items()} == {
        label: f"It is {label}{END}" for label in "ab"
    }
    assert decode(decoding["end"]) == END
    assert read_jsonl(out / "test/test.jsonl") == rows
    for part, split in (("training", "train"), ("training", "validation"), ("test", "test")):
        assert len(read_rows(out / part / f"{split}.safetensors")) == 1
        assert (out / part / "manifest.json").exists()


LONG = [
    {"id": "fits", "messages": dialogue("a", "b" * 8)},
    {"id": "cut", "messages": dialogue("a", "b" * 40)},
    {"id": "gone", "messages": dialogue("a" * 60, "b")},
]


def test_long_rows_are_cut_and_counted() -> None:
    out = tokenized(LONG, truncated=0.9, max_tokens=20)
    assert [len(ids) for ids in read_rows(out / "test/test.safetensors").ids] == [7 + 9, 20]
    assert [row["id"] for row in read_jsonl(out / "test/test.jsonl")] == ["fits", "cut"]
    card = read_json(out / "test/card.json")
    assert card["passed"]
    found = card["splits"]["test"]
    assert (found["rows"], found["cut_rows"], found["dropped_rows"]) == (3, 2, 1)
    assert found["answer_tokens"] == 9 + 41 + 2
    assert 0 < found["lost_answer_tokens"] < 52


def test_a_test_row_without_its_last_answer_is_dropped_but_trained_on() -> None:
    rows = [
        {"id": "short", "messages": dialogue("a", "b")},
        {"id": "long", "messages": dialogue("a", "b", "c" * 40, "d")},
    ]
    out = tokenized(rows, gate="warn", max_tokens=20)
    assert [row["id"] for row in read_jsonl(out / "test/test.jsonl")] == ["short"]
    assert len(read_rows(out / "test/test.safetensors")) == 1
    assert len(read_rows(out / "training/train.safetensors")) == 2


def test_a_token_without_an_embedding_is_named() -> None:
    write_json(BASE / "config.json", {"vocab_size": 260})
    record_model()
    refused(r"writes '<\|end\|>' as token 260, but .* 260 tokens.*resize_token_embeddings", LONG[:1])


@pytest.mark.parametrize("gate", ["fail", "warn"])
def test_rows_that_are_all_too_long_are_an_error_whatever_the_gate(gate: str) -> None:
    refused("train: no row has an answer within 20 tokens", LONG[2:], gate=gate, max_tokens=20)


@pytest.mark.parametrize("limit", [{"max_tokens": 20}, {"max_tokens": 500, "truncated": 0.0}])
def test_too_many_lost_answers_fail_with_figures(limit: dict[str, Any]) -> None:
    rows = [*LONG, {"id": "over the model's context", "messages": dialogue("a", "b" * 120)}]
    refused(r"% of the answer tokens are lost.*max_tokens.*gate: warn", rows, **limit)


ANSWERS = [{"id": n, "messages": dialogue("a", n * int(n)), "reference": n * int(n)} for n in "1234567"]


def test_answers_may_be_as_long_as_the_longest_reference() -> None:
    found = read_json(tokenized(ANSWERS) / "test/card.json")["references"]
    assert found == {"max_new_tokens": 8, "rows": 7, "longer": 0, "longest": 8, "tokens": 35, "lost_tokens": 0}


def test_references_that_no_answer_can_equal_are_counted_and_judged() -> None:
    message = r"2 of 7 references are longer than `max_new_tokens: 6` \(the longest has 8\), so 8\.6 % .* expected at most 0 %"
    refused(message, ANSWERS, limit=6)
    card = read_json(tokenized(ANSWERS, limit=6, gate="warn") / "test/card.json")
    assert (card["references"]["longer"], card["references"]["lost_tokens"], card["passed"]) == (2, 3, False)
    assert "references" not in read_json(tokenized(ANSWERS, limit=6, labels=["a"]) / "test/card.json")


def test_a_tokenizer_without_chat_template_is_an_error() -> None:
    config = read_json(BASE / "tokenizer_config.json")
    del config["chat_template"]
    write_json(BASE / "tokenizer_config.json", config)
    record_model()
    refused("no chat template", LONG)
    assert len(read_rows(tokenized([{"id": "1", "text": "abc"}]) / "test/test.safetensors")) == 1


def test_rows_end_at_the_positions_of_the_model() -> None:
    out = tokenized([{"id": "long", "messages": dialogue("a", "b" * 95)}], gate="warn", max_tokens=500)
    assert read_json(out / "test/card.json")["max_tokens"] == 90
    assert [len(ids) for ids in read_rows(out / "test/test.safetensors").ids] == [90]


@pytest.mark.parametrize("texts", [("a", f"write {END} here"), (f"say {END}", "no")])
def test_a_token_of_the_model_in_a_text_is_refused_by_line(texts: tuple[str, ...]) -> None:
    row = {"id": "mine.jsonl:2", "messages": dialogue(*texts)}
    fits = {"id": "mine.jsonl:1", "messages": dialogue("<s>a</s> [IMG]", "<mask>")}
    refused(r"data with model: train row mine\.jsonl:2: the \w+ turn holds '<\|end\|>'", [fits, row])
    out = tokenized([fits, row], gate="warn")
    assert [one["id"] for one in read_jsonl(out / "test/test.jsonl")] == ["mine.jsonl:1"]
    assert "mine.jsonl:2" in read_json(out / "training/card.json")["over_budget"][0]


def test_a_token_of_the_model_in_a_plain_text_is_refused() -> None:
    refused(r"train row 1: the text holds '<\|user\|>'", [{"id": "1", "text": "a <|user|> b"}])


def test_labels_with_the_same_tokens_are_refused() -> None:
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(BASE / "tokenizer.json"))
    record_model()
    rows = [{"id": "1", "messages": dialogue("?", "It is a"), "reference": "a"}]
    refused("the labels 'a' and 'A' have the same tokens with this model", rows, labels=["a", "A"])


def test_a_test_row_of_several_sequences_keeps_that_of_its_last_answer() -> None:
    make_model(THINKING)
    out = tokenized([{"id": "1", "messages": dialogue("a", "b", "c", "d"), "reference": "d"}], max_tokens=100)
    assert len(read_rows(out / "training/train.safetensors")) == 2
    test = read_rows(out / "test/test.safetensors")
    assert (len(test), decode(test.ids[0][test.answers[0]])) == (1, f"d{END}")


def test_the_reference_of_calls_and_reasoning_is_what_the_model_would_write() -> None:
    calls = "{% for call in m.tool_calls %}<call>{{ call.function.name }}</call>{% endfor %}<|end|>"
    thoughts = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    plain = THINKING.replace("{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}", "")
    make_model(plain.replace("<|end|>", calls).replace("{{ m.content }}", thoughts))
    asked, answer = dialogue("a", " b ")
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    answers = [answer, {**answer, "tool_calls": [call]}, {**answer, "reasoning_content": "why"}]
    rows = [{"id": str(n), "messages": [asked, one], "reference": " b "} for n, one in enumerate(answers)]
    kept = read_jsonl(tokenized(rows, max_tokens=100) / "test/test.jsonl")
    assert [row["reference"] for row in kept] == [" b ", "b <call>weather</call>", "<think>why</think> b"]
