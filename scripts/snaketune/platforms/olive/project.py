"""What lies in a project folder of AI Toolkit: known before any of it exists."""

OLIVE = "olive-ai==0.13.0"
# Of the training environment, what a project runs on; Olive imports requests without asking for it.
LOCKED = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "requests")
# Programs, where they go and what they are copied from.
PROGRAMS = {
    "finetuning/invoke_olive.py": "invoke_olive.py",
    "finetuning/qlora_user_script.py": "qlora_user_script.py",
    "inference/console_chat.py": "console_chat.py",
}
TEMPLATES = (*PROGRAMS.values(), "README.md.j2")
ROWS = ("dataset/train.jsonl", "dataset/validation.jsonl")
MADE = ("README.md", "finetuning/olive-config.json", "infra/finetuning.config.json", "setup/requirements.txt")

FILES = (*MADE, *PROGRAMS, *ROWS)


def model_cache(name: str, hub: str | None) -> str:
    """Where the base model lies: one of the hub is downloaded to it by the project, any other copied."""
    return f"model-cache/{hub or name}"
