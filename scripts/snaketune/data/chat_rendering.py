"""Render chats with a model's own template, turn by turn, and find the tokens of each answer; tokens of plain texts.

Imports nothing of this package, as AI Toolkit projects hold a copy of this file.
"""

import datetime
import json
import re
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, Any]]
Pair = tuple[list[int], list[bool]]

# Llama 3's templates fall back on this day where a runtime has no clock.
DATE = datetime.date(2024, 7, 26)
# Stands for the content of an answer, to see what the template writes around it.
PROBE = "This is the answer 7f3a."


@cache
def _marks(tokenizer: PreTrainedTokenizerBase, special: bool) -> tuple[re.Pattern[str], frozenset[int]]:
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
    found = _marks(tokenizer, special=True)[0].search(text)
    return found and found[0]


def _refuse_special(tokenizer: PreTrainedTokenizerBase, text: str, place: str) -> None:
    if token := special_token(tokenizer, text):
        raise ValueError(
            f"{place} holds {token!r}, which this model's tokenizer takes for a special token: write it otherwise, or set `gate: warn` to leave such rows out"
        )


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def _around(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> tuple[str, str]:
    """Return what the template writes before and after the content of an answer to ``messages``.

    Raises:
        ValueError: it writes no content.
    """
    whole = _render(tokenizer, [*messages, {"role": "assistant", "content": PROBE}])
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
        asked = _render(tokenizer, question, add_generation_prompt=True)
        before, _ = _around(tokenizer, question)
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


class _Turn(NamedTuple):
    prompt: str
    answer: str
    after: str
    """What the template writes after the answer where that is the last turn."""


def _turn(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> _Turn:
    """Return how the last of ``messages``, an answer, is asked for and rendered.

    Raises:
        ValueError: the template changes or drops a turn.
    """
    *asking, last = messages
    try:
        asked = _render(tokenizer, asking, add_generation_prompt=True)
        before, after = _around(tokenizer, asking)
        answered = _render(tokenizer, messages)
    except (jinja2.TemplateError, TypeError) as error:
        hint = "put the system text at the start of the first user turn, or " if asking[0]["role"] == "system" else ""
        raise ValueError(f"the chat template refuses the conversation ({error}): {hint}choose another model") from error
    for message in asking:
        if message["role"] != "assistant" and message["content"].strip() not in asked:
            raise ValueError(
                f"the chat template drops or changes the {message['role']} turn {message['content'][:40]!r}: put its text into another turn, or choose another model"
            )
    if not (before.startswith(asked) or asked.startswith(before)):
        raise ValueError(
            f"the chat template asks for an answer with {asked[-40:]!r} but begins one with {before[-40:]!r}: training would see another prompt than inference; choose another model, or mend chat_template in its tokenizer_config.json"
        )
    answer = answered[len(before) : len(answered) - len(after)]
    if not (answered.startswith(before) and answered.endswith(after) and answer.strip() == last["content"].strip()):
        raise ValueError(
            f"the chat template changes the answer {last['content'][:40]!r} to {answered[len(before) :][:60]!r}: write it otherwise, or choose another model"
        )
    # A space belongs to the first word, as in Mistral's format; any other text isn't part of the answer.
    more = before[len(asked) :]
    return _Turn(before, answer, after) if more.strip() else _Turn(asked, more + answer, after)


def _ends(tokenizer: PreTrainedTokenizerBase, after: str) -> list[str]:
    """Return how an answer may end in a longer conversation; the last way is its end token, the first is all.

    Phi-3.5 and Phi-4 end a whole conversation with another token.
    """
    end = _marks(tokenizer, special=True)[0].search(after) or _marks(tokenizer, special=False)[0].search(after)
    if not end:
        return []
    shortest = after[: end.end()]
    ways = (after, after.removesuffix(str(tokenizer.eos_token)), shortest)
    return [way for way in ways if way.startswith(shortest)]


def _answer(tokenizer: PreTrainedTokenizerBase, text: str, end: str) -> tuple[list[int], int]:
    """Return the tokens of an answer with its end, and how many of them are learned: up to the end token.

    Raises:
        ValueError: the tokens aren't those of the text, or nothing would end the answer.
    """
    ids: list[int] = tokenizer(text + end, add_special_tokens=False)["input_ids"]
    if end:
        pattern, marks = _marks(tokenizer, special=bool(special_token(tokenizer, end)))
        # Counted from the right: the text may hold such tokens too.
        found = [place for place, token in enumerate(ids) if token in marks]
        length = found[-len(pattern.findall(end))] + 1
    elif tokenizer.eos_token_id is None:
        raise ValueError("neither the chat template nor the tokenizer has an end token: set eos_token")
    else:
        ids.append(tokenizer.eos_token_id)
        length = len(ids)
    decoded = str(tokenizer.decode(ids[:length], clean_up_tokenization_spaces=False))
    if _plain(text) not in _plain(decoded) and tokenizer.unk_token_id not in ids[:length]:
        raise ValueError(f"the tokens of the answer {text[:40]!r} read {decoded[:60]!r}: the tokenizer loses text")
    return ids, length


def _plain(text: str) -> str:
    """Return a text without what tokenizers normalize: white space, letter case and forms of characters."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def chat_tokens(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[Pair]:
    """Return the token ids of a conversation, and which are learned: the answers with their end tokens.

    Each answer follows the very prompt that inference would give. Where the template shows an earlier
    turn otherwise than it was asked for, as without its reasoning or with the system text in another
    turn, a new sequence begins. Prompts and answers are tokenized separately, for the same reason.

    Raises:
        ValueError: the text holds a special token, or the template or tokenizer changes it.
    """
    for message in messages:
        _refuse_special(tokenizer, message["content"], f"the {message['role']} turn")
    numbers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    turns = [_turn(tokenizer, messages[: number + 1]) for number in numbers]
    found: list[Pair] = []
    ids, learned, done = list[int](), list[bool](), ""
    for number, turn, following in zip(numbers, turns, [*turns[1:], None], strict=True):
        ends = _ends(tokenizer, turn.after)
        begun = turn.prompt + turn.answer
        shown = next((end for end in ends if following and following.prompt.startswith(begun + end)), None)
        prompt = tokenizer(turn.prompt[len(done) :], add_special_tokens=False)["input_ids"]
        answer, length = _answer(tokenizer, turn.answer, next(iter(ends), "") if shown is None else shown)
        counts = messages[number].get("weight") != 0
        ids += prompt + answer
        learned += [False] * len(prompt) + [counts and place < length for place in range(len(answer))]
        done = begun + (shown or "")
        if shown is None:
            if any(learned):
                last = len(learned) - learned[::-1].index(True)
                found.append((ids[:last], learned[:last]))
            ids, learned, done = [], [], ""
    return found


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str, longest: int) -> list[Pair]:
    """Return the token ids of a plain text, between the tokens that begin and end a sequence, in pieces of ``longest``.

    A piece begins with the last token of the one before: every token is predicted once, but the very first.

    Raises:
        ValueError: the text holds a special token.
    """
    _refuse_special(tokenizer, text, "the text")
    begin, end = ([one] if one is not None else [] for one in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    ids = begin + tokenizer(text, add_special_tokens=False)["input_ids"] + end
    starts = range(0, max(1, len(ids) - 1), max(1, longest - 1))
    pieces = [ids[start : start + longest] for start in starts]
    return [(piece, [False, *[True] * (len(piece) - 1)]) for piece in pieces]


def positions(base: Path) -> int:
    """Return how many positions a model has by its config.json; if it doesn't say, as many as one likes."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx")
    found = [part[name] for part in (config, config.get("text_config") or {}) for name in names if part.get(name)]
    return min(found, default=sys.maxsize)
