"""Chat templates of every behaviour that published ones have, and a tokenizer of bytes with their tokens."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|im_start|>", "<|im_end|>",
    "<|start|>", "<|channel|>", "<|message|>", "<|return|>", "[INST]", "[/INST]",
]  # fmt: skip
ANSWER = "m.role == 'assistant'"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def tokenizer(template: Any, **special: Any) -> PreTrainedTokenizerFast:
    """One of bytes, with the special tokens of many families; `<think>` and `<turn_end>` are added, but not special."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    made.add_special_tokens(SPECIAL)
    made.add_tokens([AddedToken(one, special=False) for one in ("<think>", "</think>", "<turn_end>")])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    named = {"bos_token": "<bos>", "eos_token": "<eos>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, **named)


# name: (template, the generation prompt that the package gets, both sequences of a chat of two turns)
TEMPLATES = {
    "ChatML": (CHATML + ASKED, "<|im_start|>assistant\n", [
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n⟦d<|im_end|>⟧"]),
    "another token ends the whole": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}", "<|assistant|>",
        ["<|user|>a<|end|><|assistant|>⟦b<|end|>⟧<|user|>c<|end|><|assistant|>⟦d<|end|>⟧"]),
    "an answer begins with special tokens": (
        "{% for m in messages %}<|start|>{{ m.role }}{% if " + ANSWER + " %}<|channel|>final{% endif %}<|message|>"
        "{{ m.content }}{{ '<|return|>' if " + ANSWER + " and loop.last else '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}\n", "<|start|>assistant<|channel|>final<|message|>", [
        "<|start|>user<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>⟦b<|return|>⟧",
        "<|start|>user<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|end|>"
        "<|start|>user<|message|>c<|end|><|start|>assistant<|channel|>final<|message|>⟦d<|return|>⟧"]),
    "reasoning in the last answer": (
        "{% for m in messages %}<|{{ m.role }}|>{% if loop.last and " + ANSWER + " %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "<|assistant|><think>\n\n</think>\n\n", [
        "<|user|>a<|end|><|assistant|><think>\n\n</think>\n\n⟦b<|end|>⟧",
        "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|><think>\n\n</think>\n\n⟦d<|end|>⟧"]),
    "reasoning unless it is off": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>"
        "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}",
        "<|assistant|><think></think>", [
        "<|user|>a<|end|><|assistant|><think></think>⟦b<|end|>⟧",
        "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|><think></think>⟦d<|end|>⟧"]),
    "reasoning always": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}", "<|assistant|><think>\n\n</think>\n\n", [
        "<|user|>a<|end|><|assistant|><think>\n\n</think>\n\n⟦b<|end|>⟧",
        "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|><think>\n\n</think>\n\n⟦d<|end|>⟧"]),
    "a space before an answer": (
        "{{ bos_token }}{% for m in messages %}{% if " + ANSWER + " %} {{ m.content | trim }}{{ eos_token }}"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}", "[/INST]",
        ["<bos>[INST] a [/INST]⟦ b<eos>⟧[INST] c [/INST]⟦ d<eos>⟧"]),
    "no end token": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}", "<|assistant|>",
        ["<|user|>a\n<|assistant|>⟦b<eos>⟧", "<|user|>a\n<|assistant|>b\n<|user|>c\n<|assistant|>⟦d<eos>⟧"]),
    "an end that isn't called special": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<turn_end>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}", "<|assistant|>",
        ["<|user|>a<turn_end><|assistant|>⟦b<turn_end>⟧<|user|>c<turn_end><|assistant|>⟦d<turn_end>⟧"]),
    "several templates": ({"tool_use": "{{ 1 / 0 }}", "default": CHATML + ASKED}, "<|im_start|>assistant\n", [
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n⟦d<|im_end|>⟧"]),
    "today's date": (
        "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'never' }}" + CHATML + ASKED,
        "<|im_start|>assistant\n", [
        "26 Jul 2024<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n⟦d<|im_end|>⟧"]),
}  # fmt: skip
