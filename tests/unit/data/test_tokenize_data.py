"""Rows become the tokens that training and inference both see."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

import tokenize_data
from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, write_json, write_jsonl
from snaketune.core.layout import MODEL_FILES
from snaketune.data.chat_rendering import text_tokens
from snaketune.data.chat_template import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS
from snaketune.data.tokens import read_rows

# Writes an empty block of reasoning into the last answer only.
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RECIPE = {"max_tokens": 40, "truncated": 0.0, "gate": "fail", "novelty": False}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tokenizer_in(tmp_path / "model/base", CHAT_TEMPLATE, END)


def tokenizer_in(directory: Path, template: str, end: str) -> Path:
    """A tokenizer of one token a byte."""
    directory.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"bos_token": PAD, "eos_token": end, "pad_token": PAD, "model_max_length": 100}
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **special},
    )
    write_json(directory / "config.json", {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 90})
    write_json(directory / "generation_config.json", {"eos_token_id": [tokenizer.token_to_id(END)]})
    manifest.record(directory, {}, [], [directory / name for name in MODEL_FILES[1:]])
    return directory


def dialogue(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def tokenized(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path, rows: list[dict[str, Any]], **changes: Any
) -> Path:
    """Tokenize the same rows as every split; returns the output directory."""
    data, out = tmp_path / "data", tmp_path / "tokens"
    for split in ("train", "validation", "test"):
        write_jsonl(data / f"{split}.jsonl", rows)
    labels = changes.pop("labels", [])
    write_json(data / "card.json", {"labels": labels, "answers": [f"It is {label}" for label in labels]})
    names = ("train.jsonl", "validation.jsonl", "test.jsonl", "card.json")
    manifest.record(data, {}, [], [data / name for name in names])
    arguments = ["--base-directory", base, "--data-directory", data, "--output-directory", out]
    arguments += ["--max-new-tokens", *([limit] if (limit := changes.pop("limit", None)) else [])]
    recipe = json.dumps(RECIPE | changes)
    monkeypatch.setattr(sys, "argv", ["tokenize_data", "--recipe", recipe, *map(str, arguments)])
    tokenize_data.main()
    return out


@pytest.mark.parametrize("longest", [40, 5, 4, 2])
def test_a_plain_text_is_cut_into_pieces_and_every_token_is_predicted_once(base: Path, longest: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    pieces = text_tokens(tokenizer, "abcdefg", longest)
    assert max(len(ids) for ids, _ in pieces) == min(longest, 9)
    asked = [token for ids, answers in pieces for token, told in zip(ids, answers, strict=True) if told]
    assert tokenizer.decode(asked) == f"abcdefg{END}"
    assert [ids[0] for ids, _ in pieces] == [tokenizer.bos_token_id, *(ids[-1] for ids, _ in pieces[:-1])]


def test_nothing_of_a_long_text_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    rows = [{"id": "long", "text": "ab" * 50}, {"id": "short", "text": "c"}]
    out = tokenized(monkeypatch, tmp_path, base, rows)
    assert len(read_rows(out / "training/train.safetensors")) == 4
    assert [(row["id"], row["pieces"]) for row in read_jsonl(out / "test/test.jsonl")] == [("long", 3), ("short", 1)]
    assert read_json(out / "test/card.json")["splits"]["test"]["lost_answer_tokens"] == 0


def test_what_evaluation_needs_is_beside_the_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    rows = [{"id": "1", "messages": dialogue("?", "It is a"), "reference": "a"}]
    out = tokenized(monkeypatch, tmp_path, base, rows, labels=["a", "b"])
    tokenizer = AutoTokenizer.from_pretrained(base)
    decoding = read_json(out / "test/decoding.json")
    told = {label: tokenizer.decode(ids) for label, ids in decoding["candidates"].items()}
    assert told == {"a": f"It is a{END}", "b": f"It is b{END}"}
    assert [tokenizer.decode([token]) for token in decoding["end"]] == [END]
    assert read_jsonl(out / "test/test.jsonl") == rows
    for part, split in (("training", "train"), ("training", "validation"), ("test", "test")):
        assert len(read_rows(out / part / f"{split}.safetensors")) == 1
        assert (out / part / "manifest.json").exists()


LONG = [
    {"id": "fits", "messages": dialogue("a", "b" * 8)},
    {"id": "cut", "messages": dialogue("a", "b" * 40)},
    {"id": "gone", "messages": dialogue("a" * 60, "b")},
]


def test_long_rows_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    out = tokenized(monkeypatch, tmp_path, base, LONG, truncated=0.9, max_tokens=20)
    assert [len(ids) for ids in read_rows(out / "test/test.safetensors").ids] == [7 + 9, 20]
    assert [row["id"] for row in read_jsonl(out / "test/test.jsonl")] == ["fits", "cut"]
    card = read_json(out / "test/card.json")
    assert card["passed"]
    found = card["splits"]["test"]
    assert (found["rows"], found["cut_rows"], found["dropped_rows"]) == (3, 2, 1)
    assert found["answer_tokens"] == 9 + 41 + 2
    assert 0 < found["lost_answer_tokens"] < 52


def test_a_test_row_without_its_last_answer_is_dropped_but_trained_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path
) -> None:
    rows = [
        {"id": "short", "messages": dialogue("a", "b")},
        {"id": "long", "messages": dialogue("a", "b", "c" * 40, "d")},
    ]
    out = tokenized(monkeypatch, tmp_path, base, rows, gate="warn", max_tokens=20)
    assert [row["id"] for row in read_jsonl(out / "test/test.jsonl")] == ["short"]
    assert len(read_rows(out / "test/test.safetensors")) == 1
    assert len(read_rows(out / "training/train.safetensors")) == 2
    assert [AutoTokenizer.from_pretrained(base).decode([t]) for t in read_json(out / "test/decoding.json")["end"]] == [
        END
    ]


def test_a_token_without_an_embedding_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    write_json(base / "config.json", {"vocab_size": 260})
    manifest.record(base, {}, [], [base / name for name in MODEL_FILES[1:]])
    with pytest.raises(UserError, match=r"writes '<\|end\|>' as token 260, but .* 260 tokens.*resize_token_embeddings"):
        tokenized(monkeypatch, tmp_path, base, LONG[:1])
    assert not list((tmp_path / "tokens").rglob("*"))


@pytest.mark.parametrize("gate", ["fail", "warn"])
def test_rows_that_are_all_too_long_are_an_error_whatever_the_gate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path, gate: str
) -> None:
    with pytest.raises(UserError, match="train: no row has an answer within 20 tokens"):
        tokenized(monkeypatch, tmp_path, base, LONG[2:], gate=gate, max_tokens=20)
    assert not list((tmp_path / "tokens").rglob("*"))


@pytest.mark.parametrize("limit", [{"max_tokens": 20}, {"max_tokens": 500, "truncated": 0.0}])
def test_too_many_lost_answers_fail_with_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path, limit: dict[str, Any]
) -> None:
    rows = [*LONG, {"id": "over the model's context", "messages": dialogue("a", "b" * 120)}]
    with pytest.raises(UserError, match=r"% of the answer tokens are lost.*max_tokens.*gate: warn"):
        tokenized(monkeypatch, tmp_path, base, rows, **limit)
    assert not (tmp_path / "tokens/test/manifest.json").exists()


def test_the_gate_may_warn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    out = tokenized(monkeypatch, tmp_path, base, LONG, gate="warn", max_tokens=20)
    card = read_json(out / "training/card.json")
    assert not card["passed"]
    assert "train: " in card["over_budget"][0]


ANSWERS = [{"id": n, "messages": dialogue("a", n * int(n)), "reference": n * int(n)} for n in "1234567"]


def test_answers_may_be_as_long_as_the_longest_reference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path
) -> None:
    found = read_json(tokenized(monkeypatch, tmp_path, base, ANSWERS) / "test/card.json")["references"]
    assert found == {"max_new_tokens": 8, "rows": 7, "longer": 0, "longest": 8, "tokens": 35, "lost_tokens": 0}


def test_references_that_no_answer_can_equal_are_counted_and_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path
) -> None:
    message = r"2 of 7 references are longer than `max_new_tokens: 6` \(the longest has 8\), so 8\.6 % .* expected at most 0 %"
    with pytest.raises(UserError, match=message):
        tokenized(monkeypatch, tmp_path, base, ANSWERS, limit=6)
    assert not (tmp_path / "tokens/test/card.json").exists()
    card = read_json(tokenized(monkeypatch, tmp_path, base, ANSWERS, limit=6, gate="warn") / "test/card.json")
    assert (card["references"]["longer"], card["references"]["lost_tokens"], card["passed"]) == (2, 3, False)
    labelled = tokenized(monkeypatch, tmp_path, base, ANSWERS, limit=6, labels=["a"])
    assert "references" not in read_json(labelled / "test/card.json")


def test_a_tokenizer_without_chat_template_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path
) -> None:
    config = read_json(base / "tokenizer_config.json")
    del config["chat_template"]
    write_json(base / "tokenizer_config.json", config)
    manifest.record(base, {}, [], [base / name for name in MODEL_FILES[1:]])
    with pytest.raises(UserError, match="no chat template"):
        tokenized(monkeypatch, tmp_path, base, LONG)
    texts = [{"id": "1", "text": "abc"}]
    assert len(read_rows(tokenized(monkeypatch, tmp_path, base, texts) / "test/test.safetensors")) == 1


def test_rows_end_at_the_positions_of_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    rows = [{"id": "long", "messages": dialogue("a", "b" * 95)}]
    out = tokenized(monkeypatch, tmp_path, base, rows, gate="warn", max_tokens=500)
    assert read_json(out / "test/card.json")["max_tokens"] == 90
    assert [len(ids) for ids in read_rows(out / "test/test.safetensors").ids] == [90]


HELD = {"id": "mine.jsonl:2", "messages": dialogue("a", f"write {END} here")}


@pytest.mark.parametrize("row", [HELD, {"id": "mine.jsonl:2", "messages": dialogue(f"say {END}", "no")}])
def test_a_token_of_the_model_in_a_text_is_refused_by_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path, row: dict[str, Any]
) -> None:
    fits = {"id": "mine.jsonl:1", "messages": dialogue("<s>a</s> [IMG]", "<mask>")}
    with pytest.raises(UserError, match=r"data with model: train row mine\.jsonl:2: the \w+ turn holds '<\|end\|>'"):
        tokenized(monkeypatch, tmp_path, base, [fits, row])
    assert not list((tmp_path / "tokens").rglob("*"))
    out = tokenized(monkeypatch, tmp_path, base, [fits, row], gate="warn")
    assert [one["id"] for one in read_jsonl(out / "test/test.jsonl")] == ["mine.jsonl:1"]
    assert "mine.jsonl:2" in read_json(out / "training/card.json")["over_budget"][0]


def test_a_token_of_the_model_in_a_plain_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path
) -> None:
    with pytest.raises(UserError, match=r"train row 1: the text holds '<\|user\|>'"):
        tokenized(monkeypatch, tmp_path, base, [{"id": "1", "text": "a <|user|> b"}])


def test_labels_with_the_same_tokens_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(base / "tokenizer.json"))
    manifest.record(base, {}, [], [base / name for name in MODEL_FILES[1:]])
    rows = [{"id": "1", "messages": dialogue("?", "It is a"), "reference": "a"}]
    with pytest.raises(UserError, match="the labels 'a' and 'A' have the same tokens with this model"):
        tokenized(monkeypatch, tmp_path, base, rows, labels=["a", "A"])


def test_a_test_row_of_several_sequences_keeps_that_of_its_last_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = tokenizer_in(tmp_path / "model/base", THINKING, END)
    rows = [{"id": "1", "messages": dialogue("a", "b", "c", "d"), "reference": "d"}]
    out = tokenized(monkeypatch, tmp_path, base, rows, max_tokens=100)
    assert len(read_rows(out / "training/train.safetensors")) == 2
    test = read_rows(out / "test/test.safetensors")
    decoded = AutoTokenizer.from_pretrained(base).decode(test.ids[0][test.answers[0]])
    assert (len(test), decoded) == (1, f"d{END}")
