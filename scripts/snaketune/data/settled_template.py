"""A model's chat template, settled once so that training, evaluation and package render the same.

Imports nothing of this package, as AI Toolkit projects hold a copy of this file.
"""

import datetime
import json
import re
from functools import cache
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, Any]]

# Llama 3's templates fall back on this day where a runtime has no clock.
DATE = datetime.date(2024, 7, 26)
# Stands for the content of an answer, to see what the template writes around it.
PROBE = "This is the answer 7f3a."


@cache
def marks(tokenizer: PreTrainedTokenizerBase, special: bool) -> tuple[re.Pattern[str], frozenset[int]]:
    """Return the added tokens that aren't blank, or only the ``special`` ones: as a pattern, and their ids.

    Special tokens of the chat format may lack a name in the tokenizer.
    """
    names = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip() and (not special or token.special or number in tokenizer.all_special_ids)
    }
    longest_first = sorted(map(re.escape, names.values()), key=len, reverse=True)
    return re.compile("|".join(longest_first) or "(?!)"), frozenset(names)


def special_token(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    """Return the first special token of this tokenizer that a text holds."""
    found = marks(tokenizer, special=True)[0].search(text)
    return found and found[0]


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def around(tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: Any) -> tuple[str, str]:
    """Return what the template writes before and after the content of an answer to ``messages``.

    Raises:
        ValueError: it writes no content.
    """
    whole = render(tokenizer, [*messages, {"role": "assistant", "content": PROBE}], **options)
    before, found, after = whole.rpartition(PROBE)
    if not found:
        raise ValueError("the chat template doesn't write the assistant's turns: use the template of a chat model")
    return before, after


def settled_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the tokenizer's chat template such that training, evaluation and package get the same from it.

    Of several templates it is the one named `default`; a date is always the same; reasoning is off; and
    what the template writes between its generation prompt and an answer is part of the generation
    prompt: an empty block of reasoning, or the channel of an answer.

    Raises:
        ValueError: none of several templates is named `default`, or the date can't be replaced.
    """
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            raise ValueError(f"of its chat templates {', '.join(template)} none is named default: name one so")
        template = template["default"]
    if not template:
        return None
    template = re.sub(r"strftime_now\s+is\s+defined", "true", template)
    template = re.sub(
        r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""", lambda call: json.dumps(DATE.strftime(call[2])), template
    )
    if "strftime_now" in template:
        raise ValueError("the chat template reads the clock in a way that can't be replaced: write a date into it")
    if "enable_thinking" in template:
        template = "{% set enable_thinking = false %}" + template
    tokenizer.chat_template = template
    question: Messages = [{"role": "user", "content": "?"}]
    try:
        asked = render(tokenizer, question, add_generation_prompt=True)
        before, _ = around(tokenizer, question)
    except (jinja2.TemplateError, TypeError, ValueError):
        return str(template)  # The first row tells why.
    missing = before[len(asked) :] if before.startswith(asked) else ""
    # The prompt may open a block of reasoning: <think>, or <seed:think>.
    if not missing and (opened := re.search(r"<([\w:]*(?:think|thought|reason)[\w:]*)>\s*\Z", asked)):
        missing = f"\n</{opened[1]}>\n\n"
    if missing.strip():
        # As Jinja does with a last newline.
        template = template.removesuffix("\n")
        template += "{% if add_generation_prompt %}{{ " + json.dumps(missing, ensure_ascii=False) + " }}{% endif %}"
    return str(template)
