"""Phi-3's chat format, as in its model card, for the models that the workflow builds."""

PAD = "<|endoftext|>"
END = "<|end|>"
SPECIAL_TOKENS = [PAD, "<|system|>", "<|user|>", "<|assistant|>", END]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def render(user: str, assistant: str) -> str:
    """Render one question and its answer in the chat format."""
    return f"<|user|>\n{user}{END}\n<|assistant|>\n{assistant}{END}\n"
