"""The fields of a template, and the special tokens that texts and templates must not hold."""

import re
import string

# Tokens that chat templates and tokenizers of the common model families are made of: in a text they
# would be taken for the end of a turn. Phi, Qwen, Llama 3 and GPT: <|name|>; DeepSeek: <｜name｜>;
# Llama 2 and Mistral: [INST], <<SYS>>; Gemma: <start_of_turn>.
MARKUP = re.compile(
    r"<\|/?[A-Za-z_][\w ]{0,40}\|>|<｜[\w▁ ]{1,40}｜>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|\[(?:PREFIX|SUFFIX|IMG)\]"
    r"|<</?SYS>>|<(?:start|end)_of_turn>|</?s>|<(?:bos|eos|pad|unk|mask)>|<unused\d{1,5}>"
)


def template_fields(template: str) -> set[str]:
    """Return what is in the braces of a template, with any conversion and format.

    Raises:
        ValueError: a brace has no counterpart.
    """
    return {
        field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        for _, field, form, conversion in string.Formatter().parse(template)
        if field is not None
    }
