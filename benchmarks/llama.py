"""Convert a run's model to GGUF and run it with llama.cpp."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.evaluation.speed import PythonLoop


def write_gguf(model: Path, out: Path, weights: str) -> None:
    """Write a Phi-3 or Llama of transformers with its matrices as ``weights``: ``F32``, or ``Q4_0`` (table and head too).

    It has no tokenizer: tokens go in and out as ids.

    Raises:
        UserError: the model is neither, or has scaled rope or windows of attention.
    """
    config = read_json(model / "config.json")
    rope = config.get("rope_parameters") or {}
    if (
        config["model_type"] not in ("phi3", "llama")
        or rope.get("rope_type", "default") != "default"
        or config.get("sliding_window")
    ):
        raise UserError(
            f"{model / 'config.json'}: only a Phi-3 or Llama without rope scaling or a window of attention can be written as GGUF: leave llama.cpp out with --systems, or take another model"
        )
    import gguf

    family, head = config["model_type"], config["hidden_size"] // config["num_attention_heads"]
    writer = gguf.GGUFWriter(out, family)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_scaling_orig_ctx_len(
        config.get("original_max_position_embeddings", config["max_position_embeddings"])
    )
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config["num_hidden_layers"])
    kind = gguf.GGMLQuantizationType[weights]
    for name, tensor in load_file(model / "model.safetensors").items():
        if family == "llama" and (part := name.split(".")[-2]) in ("q_proj", "k_proj"):
            # llama.cpp rotates neighbours there, transformers halves of a head.
            heads = config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
            tensor = tensor.reshape(heads, 2, head // 2, -1).swapaxes(1, 2).reshape(tensor.shape)
        taken = kind if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32
        packed = gguf.quants.quantize(tensor.astype(np.float32), taken)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), packed, raw_dtype=taken)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaBackend:
    """Implements decoding.Backend for one row at a time; its cache is the context's own."""

    def __init__(self, model: Path, threads: int, context: int):
        import llama_cpp

        self.library = llama_cpp
        self.log = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.log, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(model).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise UserError(f"{model}: llama.cpp can't load it")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = context
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def forward(self, ids: np.ndarray, past: Any, keep: int) -> tuple[np.ndarray, Any]:
        """Logits of the last position, (1, 1, vocabulary): ``keep`` must be 1."""
        library = self.library
        if past is None:
            library.llama_memory_clear(library.llama_get_memory(self.context), True)
        [row] = ids
        tokens = (library.llama_token * len(row))(*row)
        if failed := library.llama_decode(self.context, library.llama_batch_get_one(tokens, len(row))):
            raise RuntimeError(f"llama_decode returned {failed}")
        logits = np.ctypeslib.as_array(library.llama_get_logits_ith(self.context, -1), (self.vocabulary,))
        return logits[None, None].copy(), True


def loaded(model: Path, threads: int, context: int) -> PythonLoop:
    """Load a GGUF model; llama-cpp-python must be on the path."""
    return PythonLoop(LlamaBackend(model, threads, context))
