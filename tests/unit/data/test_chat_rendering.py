"""Whatever a chat template does around an answer, the answer is what is learned, after the prompt that inference gives."""

import itertools
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from snaketune.data.chat_rendering import chat_tokens, settled_template, special_token

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


def turns(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def shown(known: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> list[str]:
    """Each sequence as text, with what is learned in ⟦brackets⟧."""
    found = []
    for ids, learned in chat_tokens(known, messages):
        runs = itertools.groupby(zip(ids, learned, strict=True), key=lambda pair: pair[1])
        parts = [(known.decode([token for token, _ in run]), marked) for marked, run in runs]
        found.append("".join(f"⟦{text}⟧" if marked else text for text, marked in parts))
    return found


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


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_answer_is_learned_whole_after_the_prompt_of_inference(name: str) -> None:
    template, asked, expected = TEMPLATES[name]
    known = tokenizer(template)
    known.chat_template = settled_template(known)
    messages = turns("a", "b", "c", "d")
    assert shown(known, messages) == expected
    # The package renders the template by itself, without what we know of it.
    prompt = known.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith(asked)
    ids, learned = chat_tokens(known, messages)[-1]
    start = len(learned) - learned[::-1].index(False)
    assert known.decode(ids[:start]).endswith(prompt[-len(asked) :])
    assert settled_template(known) == known.chat_template or "enable_thinking" in str(template)
    for answer in ("<|", "e", "(the answer)", "naïve 10 €\n\n- x", "<think>", "final"):
        ids, learned = chat_tokens(known, turns("a", answer))[-1]
        told = known.decode([token for token, one in zip(ids, learned, strict=True) if one])
        assert told.strip().startswith(answer)


SYSTEM = [{"role": "system", "content": "Be brief."}]
LAST_USER = (
    "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}{% for m in rest %}"
    "{% if m.role == 'user' %}[INST]{% if m == (rest | selectattr('role', 'equalto', 'user') | list)[-1] and "
    "messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_a_system_text_is_where_the_template_puts_it_when_it_asks() -> None:
    expected = ["[INST]Be brief.\na[/INST]⟦b<eos>⟧", "[INST]a[/INST]b<eos>[INST]Be brief.\nc[/INST]⟦d<eos>⟧"]
    assert shown(tokenizer(LAST_USER), [*SYSTEM, *turns("a", "b", "c", "d")]) == expected
    merged = CHATML.replace("messages %}", "messages[1:] %}", 1).replace(
        "{{ m.content }}", "{{ messages[0].content + ' ' if loop.first }}{{ m.content }}"
    )
    [found] = shown(tokenizer(merged + ASKED), [*SYSTEM, *turns("a", "b", "c", "d")])
    assert found.startswith("<|im_start|>user\nBe brief. a<|im_end|>")


@pytest.mark.parametrize(
    ("template", "messages", "fault"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML + ASKED,
            [*SYSTEM, *turns("a", "b")],
            r"refuses the conversation \(no system\): put the system text at the start of the first user turn",
        ),
        (
            CHATML.replace("messages %}", "messages if m.role != 'system' %}", 1) + ASKED,
            [*SYSTEM, *turns("a", "b")],
            "drops or changes the system turn 'Be brief.'",
        ),
        (CHATML.replace("m.content", "m.content | upper"), turns("a", "b"), "doesn't write the assistant's turns"),
        (
            CHATML.replace("m.content", "m.content.split('#')[-1]") + ASKED,
            turns("a", "b#c"),
            "changes the answer 'b#c'",
        ),
        (CHATML + "<|assistant|>", turns("a", "b"), "asks for an answer with .* but begins one with"),
        (CHATML + ASKED, turns("a", "so <|end|> it is"), r"assistant turn holds '<\|end\|>'"),
        (CHATML + ASKED, turns("<|im_start|>", "b"), r"user turn holds '<\|im_start\|>'"),
    ],
)
def test_what_a_template_would_change_is_refused(template: str, messages: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        chat_tokens(tokenizer(template), messages)


def test_a_model_without_any_end_token_is_refused() -> None:
    with pytest.raises(ValueError, match="neither the chat template nor the tokenizer has an end token"):
        chat_tokens(tokenizer("{% for m in messages %}{{ m.content }}{% endfor %}", eos_token=None), turns("a", "b"))


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ({"rag": "", "tool_use": ""}, "chat templates rag, tool_use none is named default"),
        ("{{ strftime_now(form) }}" + CHATML, "reads the clock"),
    ],
)
def test_a_template_that_cannot_be_settled_is_refused(template: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        settled_template(tokenizer(template))


def test_an_answer_of_weight_0_is_read_but_not_learned() -> None:
    messages = turns("a", "b", "c", "d")
    messages[1]["weight"] = 0
    [found] = shown(tokenizer(CHATML + ASKED), messages)
    assert found.count("⟦") == 1
    assert "\nb<|im_end|>" in found
    assert shown(tokenizer(LAST_USER), [*SYSTEM, *messages]) == [
        "[INST]a[/INST]b<eos>[INST]Be brief.\nc[/INST]⟦d<eos>⟧"
    ]


def test_only_tokens_of_this_tokenizer_are_special() -> None:
    known = tokenizer(CHATML)
    assert special_token(known, "<s>20 €</s> <b>[IMG]</b> <|endoftext|> <think>") is None
    assert special_token(known, "a [INST] b") == "[INST]"
