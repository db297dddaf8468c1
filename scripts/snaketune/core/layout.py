"""The file names in each kind of directory, known before any file exists."""

from pathlib import Path

SPLITS = ("train", "validation", "test")
TRAINING_FILES = ("train.safetensors", "validation.safetensors", "card.json")
TEST_FILES = ("test.safetensors", "test.jsonl", "decoding.json", "card.json")
RECORDS = ("manifest.json", "provenance.json")
MODEL_FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
TOKENIZER_FILES = MODEL_FILES[3:]
PREFIX_FILE = "prefix.safetensors"
# Exported: what a switchable base takes, and an adapter for it.
INPUTS_FILE = "adapter_inputs.json"
ADAPTER_FILE = "adapter.onnx_adapter"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
ONNX_FILES = ("model.onnx", "model.onnx_data", *MODEL_FILES[1:])
GENAI_FILES = ("model.onnx", "model.onnx_data", "genai_config.json", *TOKENIZER_FILES)
PACKAGE_FILES = (*GENAI_FILES, "generation_config.json", "README.md", "run.py", "requirements.txt", "SHA256SUMS")


def model_files(directory: Path) -> list[Path]:
    """Return the files that determine a local transformers model; weights are safetensors."""
    return sorted(
        path for path in directory.iterdir() if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt")
    )
