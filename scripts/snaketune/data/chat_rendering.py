"""Render chats with a model's own template, turn by turn, and find the tokens of each answer; tokens of plain texts.

Imports nothing of this package but settled_template.py, as AI Toolkit projects hold copies of both.
"""

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from transformers import PreTrainedTokenizerBase

from snaketune.data.settled_template import PROBE, Messages, around, marks, render, special_token

Tools = list[dict[str, Any]] | None
Pair = tuple[list[int], list[bool]]

# Stands for the reasoning of an answer, to see what the template writes before it.
REASON = "This is the reason 5c1e."


def _refuse_special(tokenizer: PreTrainedTokenizerBase, text: str, place: str) -> None:
    if token := special_token(tokenizer, text):
        raise ValueError(
            f"{place} holds {token!r}, which this model's tokenizer takes for a special token: write it otherwise, or set `gate: warn` to leave such rows out"
        )


class _Turn(NamedTuple):
    prompt: str
    answer: str
    after: str
    """What the template writes after the answer where that is the last turn."""


def _check_asking(asking: Messages, asked: str, asked_without_tools: str | None) -> None:
    """Raise a ValueError if the template drops or changes what is asked."""
    if asked == asked_without_tools:
        raise ValueError("the chat template doesn't write `tools`: leave them out, or choose a model that calls tools")
    for message in asking:
        text = message["content"].strip()
        # Llama 3 quotes what tools answer.
        quoted = json.dumps(text, ensure_ascii=False)[1:-1]
        if message["role"] != "assistant" and text not in asked and quoted not in asked:
            raise ValueError(
                f"the chat template drops or changes the {message['role']} turn {message['content'][:40]!r}: put its text into another turn, or choose another model"
            )


def _is_whole(answer: str, message: dict[str, Any]) -> bool:
    """Return whether a rendered answer has all that its message says.

    Raises:
        ValueError: the template writes no calls.
    """
    content, reasoning = message["content"].strip(), message.get("reasoning_content", "")
    functions = [call["function"] for call in message.get("tool_calls", ())]
    if not (reasoning or functions):
        return answer.strip() == content
    before, _, after = answer.rpartition(content) if content else (answer, "", "")
    for word in (word for function in functions for word in (function["name"], *function["arguments"])):
        if word not in before + after:
            raise ValueError(
                f"the chat template doesn't write `tool_calls` ({word!r} is missing): write the call into the content, or choose a model that calls tools"
            )
    return content in answer and reasoning in before


def _turn(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools) -> _Turn:
    """Return how the last of ``messages``, an answer, is asked for and rendered.

    Raises:
        ValueError: the template changes or drops a turn, or what is in it.
    """
    *asking, last = messages
    reasoning = last.get("reasoning_content")
    try:
        asked = render(tokenizer, asking, add_generation_prompt=True, tools=tools)
        without_tools = render(tokenizer, asking, add_generation_prompt=True) if tools else None
        before, after = around(tokenizer, asking, tools=tools)
        answered = render(tokenizer, messages, tools=tools)
        if reasoning:
            probe = {"role": "assistant", "content": PROBE, "reasoning_content": REASON}
            before, known, _ = render(tokenizer, [*asking, probe], tools=tools).partition(REASON)
    except (jinja2.TemplateError, TypeError) as error:
        hint = "put the system text at the start of the first user turn, or " if asking[0]["role"] == "system" else ""
        raise ValueError(f"the chat template refuses the conversation ({error}): {hint}choose another model") from error
    _check_asking(asking, asked, without_tools)
    if reasoning and not known:
        raise ValueError(
            "the chat template doesn't write `reasoning_content`: leave it out, write it into the content, or choose a model that reasons"
        )
    if not (before.startswith(asked) or asked.startswith(before)):
        raise ValueError(
            f"the chat template asks for an answer with {asked[-40:]!r} but begins one with {before[-40:]!r}: training would see another prompt than inference; choose another model, or mend chat_template in its tokenizer_config.json"
        )
    # The prompt of inference closes the block of reasoning that an answer with reasoning fills.
    prompt = min(asked, before, key=len) if reasoning else before
    answer = answered[len(prompt) : len(answered) - len(after)]
    if not (answered.startswith(prompt) and answered.endswith(after) and _is_whole(answer, last)):
        raise ValueError(
            f"the chat template changes the answer {last['content'][:40]!r} to {answered[len(prompt) :][:60]!r}: write it otherwise, or choose another model"
        )
    # A space belongs to the first word, as in Mistral's format; any other text isn't part of the answer.
    more = before[len(asked) :]
    return _Turn(prompt, answer, after) if more.strip() or reasoning else _Turn(asked, more + answer, after)


def _ends(tokenizer: PreTrainedTokenizerBase, after: str) -> list[str]:
    """Return how an answer may end in a longer conversation; the last way is its end token, the first is all.

    Phi-3.5 and Phi-4 end a whole conversation with another token.
    """
    end = marks(tokenizer, special=True)[0].search(after) or marks(tokenizer, special=False)[0].search(after)
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
        pattern, ends = marks(tokenizer, special=bool(special_token(tokenizer, end)))
        # Counted from the right: the text may hold such tokens too.
        found = [place for place, token in enumerate(ids) if token in ends]
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


def chat_tokens(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools = None) -> list[Pair]:
    """Return the token ids of a conversation, and which are learned: the answers with their end tokens.

    Each answer follows the very prompt that inference would give. Where the template shows an earlier
    turn otherwise than it was asked for, as without its reasoning or with the system text in another
    turn, a new sequence begins. Prompts and answers are tokenized separately, for the same reason.

    Raises:
        ValueError: the text holds a special token, or the template or tokenizer changes it.
    """
    for message in messages:
        more = (message.get("reasoning_content", ""), json.dumps(message.get("tool_calls"), ensure_ascii=False))
        for text in (message["content"], *more):
            _refuse_special(tokenizer, text, f"the {message['role']} turn")
    _refuse_special(tokenizer, json.dumps(tools, ensure_ascii=False), "the list of tools")
    numbers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    turns = [_turn(tokenizer, messages[: number + 1], tools) for number in numbers]
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
