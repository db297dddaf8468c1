"""Whatever a chat template does around an answer, the answer is what is learned, after the prompt that inference gives."""

import itertools
from typing import Any

import pytest
from support.chat_templates import ASKED, CHATML, TEMPLATES, tokenizer
from transformers import PreTrainedTokenizerFast

from snaketune.data.chat_rendering import chat_tokens
from snaketune.data.settled_template import settled_template, special_token


def turns(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def shown(known: PreTrainedTokenizerFast, messages: list[dict[str, Any]], tools: Any = None) -> list[str]:
    """Each sequence as text, with what is learned in ⟦brackets⟧."""
    found = []
    for ids, learned in chat_tokens(known, messages, tools):
        runs = itertools.groupby(zip(ids, learned, strict=True), key=lambda pair: pair[1])
        parts = [(known.decode([token for token, _ in run]), marked) for marked, run in runs]
        found.append("".join(f"⟦{text}⟧" if marked else text for text, marked in parts))
    return found


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


CALLING = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
    "{{ m.content | tojson if m.role == 'tool' else m.content }}"
    "{% for call in m.tool_calls %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    + ASKED
)
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}
RESULT = {"role": "tool", "content": '{"degrees": 4}'}


def test_calls_of_tools_are_learned_and_what_tools_answer_is_read() -> None:
    [found] = shown(tokenizer(CALLING), [*turns("a"), CALLED, RESULT, *turns("", "b")[1:]], TOOLS)
    assert found == (
        '<|im_start|>system\n[{"type": "function", "function": {"name": "weather"}}]<|im_end|>\n'
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
        '⟦<call>{"name": "weather", "arguments": {"city": "Oslo"}}</call><|im_end|>⟧\n'
        '<|im_start|>user\n"{\\"degrees\\": 4}"<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧'
    )


# A template that leaves reasoning out asks with an empty block.
OFF = "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n{% endif %}"


@pytest.mark.parametrize(
    ("template", "prompt"), [(CALLING, ""), (CALLING.replace("assistant\n{% endif", OFF + "{% endif"), "<think>\n")]
)
def test_reasoning_is_learned_as_the_template_writes_it(template: str, prompt: str) -> None:
    known = tokenizer(template)
    known.chat_template = settled_template(known)
    messages = [
        one | ({"reasoning_content": f"why {one['content']}?"} if n % 2 else {}) for n, one in enumerate(turns(*"abcd"))
    ]
    begin = "" if prompt else "<think>\n"
    assert shown(known, messages) == [
        f"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{prompt}⟦{begin}why b?\n</think>\nb<|im_end|>⟧",
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        f"<|im_start|>assistant\n{prompt}⟦{begin}why d?\n</think>\nd<|im_end|>⟧",
    ]


def test_several_system_turns_are_where_the_template_writes_them() -> None:
    later = [*SYSTEM, *turns("a", "b"), {"role": "system", "content": "Be long."}, *turns("c", "d")]
    [found] = shown(tokenizer(CHATML + ASKED), later)
    assert "⟦b<|im_end|>⟧\n<|im_start|>system\nBe long.<|im_end|>\n<|im_start|>user\nc" in found
    first = CHATML.replace("messages %}", "messages if m.role != 'system' or m == messages[0] %}", 1)
    with pytest.raises(ValueError, match="drops or changes the system turn 'Be long"):
        chat_tokens(tokenizer(first + ASKED), later)


@pytest.mark.parametrize(
    ("template", "messages", "tools", "fault"),
    [
        (CHATML, turns("a", "b"), TOOLS, "doesn't write `tools`"),
        (CHATML, [*turns("a"), CALLED | {"content": "weather of a city"}], None, "doesn't write `tool_calls`"),
        (CHATML, [*turns("a"), turns("", "b")[1] | {"reasoning_content": "c"}], None, "write `reasoning_content`"),
        (
            CHATML.replace("messages %}", "messages if m.role != 'tool' %}", 1),
            [*turns("a"), turns("", "b")[1], RESULT, turns("", "c")[1]],
            None,
            "drops or changes the tool turn",
        ),
        (CALLING, [*turns("a"), turns("", "b")[1] | {"reasoning_content": "<|end|>"}], None, r"holds '<\|end\|>'"),
        (CALLING, turns("a", "b"), [{"name": "<|end|>"}], r"the list of tools holds '<\|end\|>'"),
    ],
)
def test_what_a_template_has_no_rule_for_is_refused(template: str, messages: Any, tools: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        chat_tokens(tokenizer(template + (ASKED if template.startswith(CHATML[:20]) else "")), messages, tools)


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
