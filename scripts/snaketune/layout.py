"""The names of the files in each kind of directory: known before any of them exists."""

SPLITS = ("train", "validation", "test")
RECORDS = ("manifest.json", "provenance.json")
MODEL_FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
TOKENIZER_FILES = MODEL_FILES[3:]
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
ONNX_FILES = ("model.onnx", "model.onnx_data", *MODEL_FILES[1:])
