"""onnxruntime-genai's backend, over a runtime that keeps its rules and knows the right logits; and damaged packages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import CONTEXT, TABLE, without_model

import evaluate
from snaketune.config.export import Genai
from snaketune.core.errors import UserError
from snaketune.inference.genai_backend import GenaiBackend


@pytest.fixture
def backend() -> GenaiBackend:
    return without_model()


def test_a_place_of_padding_has_no_logits(backend: GenaiBackend) -> None:
    ids, mask = np.array([[0, 0, 4], [1, 2, 3]]), np.array([[0, 0, 1], [1, 1, 1]])
    logits, _ = backend.forward(ids, None, 3, mask)
    assert np.isnan(logits[0, :2]).all()
    np.testing.assert_array_equal(logits[0, 2], TABLE[4])
    np.testing.assert_array_equal(logits[1], TABLE[[1, 3, 6]])


def test_a_past_that_was_gone_on_from_is_refused(backend: GenaiBackend) -> None:
    _, past = backend.forward(np.array([[1, 2]]), None, 1)
    np.testing.assert_array_equal(backend.branch(np.array([[3], [5]]), past)[:, 0], TABLE[[6, 8]])
    backend.forward(np.array([[4]]), past, 1)
    with pytest.raises(ValueError, match="used before"):
        backend.forward(np.array([[5]]), past, 1)
    backend.forward(np.array([[5]]), None, 1)


def test_the_context_is_never_left(backend: GenaiBackend) -> None:
    full = np.ones((1, CONTEXT), dtype=np.int64)
    _, past = backend.forward(full, None, 1)
    with pytest.raises(UserError, match=r"take 21 tokens, but the model's context is 20"):
        backend.forward(full[:, :1], past, 1)
    with pytest.raises(UserError, match=r"take 22 tokens"):
        backend.forward(np.ones((1, CONTEXT + 2), dtype=np.int64), None, 1)


def package(directory: Path, **session_options: Any) -> Path:
    decoder = {"session_options": session_options, "filename": "model.onnx"}
    model = {"type": "llama", "context_length": 8, "vocab_size": 8, "decoder": decoder}
    (directory / "genai_config.json").write_text(json.dumps({"model": model}))
    return directory / "model.onnx"


@pytest.mark.parametrize(
    ("provider", "words"), [("cuda", "[Cc]uda"), ("OpenVINO", "OpenVINO"), ("abacus", "Unknown provider name 'abacus'")]
)
def test_an_execution_provider_that_isnt_there_is_named(tmp_path: Path, provider: str, words: str) -> None:
    model = package(tmp_path, provider_options=[{provider: {}}])
    with pytest.raises(UserError, match=f"onnxruntime-genai can't load it .*{words}"):
        GenaiBackend(model, 1)


def test_a_damaged_package_is_told_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}: onnxruntime-genai can't load it"):
        evaluate.load(package(tmp_path), None, 1)
    (tmp_path / "genai_config.json").write_text("{")
    with pytest.raises(UserError, match=f"{tmp_path}: onnxruntime-genai can't load it"):
        evaluate.load(tmp_path / "model.onnx", None, 1)


def test_a_prefix_isnt_dropped_without_a_word(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't start from a prefix"):
        evaluate.load(package(tmp_path), tmp_path / "prefix.safetensors", 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mixed_precision": "last_matmul:int8"}, "mixed_precision needs algorithm: rtn or k_quant"),
        ({"symmetric": False}, "symmetric: false needs algorithm: rtn or k_quant"),
        ({"algorithm": "rtn", "mixed_precision": "head:int8"}, "String should match pattern"),
    ],
)
def test_options_of_which_the_builder_makes_a_broken_graph_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Genai(weights="int4", **options)


def test_other_options_are_taken() -> None:
    Genai(weights="int4", algorithm="k_quant", mixed_precision="last_matmul:int8,mixed_layers:int8")
    Genai(weights="int4", symmetric=False, quantize_embeddings=False)
