"""The files of an AI Toolkit project folder, known before any of them exists."""

OLIVE = "olive-ai==0.13.0"
# Packages of the training environment that a project needs; Olive imports requests without declaring it.
LOCKED = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "requests")
# Programs: where they go, and the template they are copied from.
PROGRAMS = {
    "finetuning/invoke_olive.py": "invoke_olive.py",
    "finetuning/qlora_user_script.py": "qlora_user_script.py",
    **{
        f"finetuning/snaketune/data/{name}": f"../../scripts/snaketune/data/{name}"
        for name in ("chat_rendering.py", "settled_template.py")
    },
    "inference/console_chat.py": "console_chat.py",
}
TEMPLATES = (*PROGRAMS.values(), "README.md.j2")
ROWS = ("dataset/train.jsonl", "dataset/validation.jsonl")
MADE = ("README.md", "finetuning/olive-config.json", "infra/finetuning.config.json", "setup/requirements.txt")

FILES = (*MADE, *PROGRAMS, *ROWS)


def model_cache(name: str, hub: str | None) -> str:
    """Return the folder of the base model: a hub model is downloaded there by the project, any other is copied."""
    return f"model-cache/{hub or name}"
