"""Rows for Olive: chats of which only the answers are learnt, or plain texts.

Olive's own reader of chats would train on the questions too.
"""

from typing import Any

from datasets import Dataset
from olive.data.registry import Registry
from transformers import AutoTokenizer

# The label of a token that torch's cross-entropy leaves out.
IGNORED = -100


def special_ids(tokenizer: Any) -> set[int]:
    """All special tokens: those of the chat format needn't be among the tokenizer's named ones."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def of_chat(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Token ids of a chat, and the same as labels where they are an answer or its end token."""
    ids: list[int] = []
    labels: list[int] = []
    whole, done = tokenizer.apply_chat_template(messages, tokenize=False), 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = tokenizer.apply_chat_template(messages[:number], tokenize=False, add_generation_prompt=True)
        answered = tokenizer.apply_chat_template(messages[: number + 1], tokenize=False)
        if not whole.startswith(answered) and tokenizer.eos_token:
            answered = answered.removesuffix(tokenizer.eos_token)
        if not (whole.startswith(asked) and answered.startswith(asked) and whole.startswith(answered)):
            raise SystemExit("error: the chat template's generation prompt isn't how it begins an answer")
        prompt = tokenizer(whole[done : len(asked)], add_special_tokens=False)["input_ids"]
        answer = tokenizer(whole[len(asked) : len(answered)], add_special_tokens=False)["input_ids"]
        ends = (place for place, token in enumerate(answer) if token in special_ids(tokenizer))
        length = next(ends, len(answer) - 1) + 1
        ids += prompt + answer
        labels += [IGNORED] * len(prompt) + answer[:length] + [IGNORED] * (len(answer) - length)
        done = len(answered)
    last = max((place for place, label in enumerate(labels) if label != IGNORED), default=-1) + 1
    return ids[:last], labels[:last]


def of_text(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Token ids of a text after the token that begins one, all learnt but that."""
    begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return begin + ids, [IGNORED] * len(begin) + ids


@Registry.register_pre_process()
def answers_of_chats(dataset: Any, model_name: str, longest: int, **_: Any) -> Dataset:
    """Rows of token ids and labels, cut at ``longest`` tokens; those with no answer left are dropped."""
    tokenizer = AutoTokenizer.from_pretrained(model_name, trust_remote_code=False)
    longest = min(longest, tokenizer.model_max_length)
    rows = []
    for row in dataset:
        found = of_chat(tokenizer, row["messages"]) if "messages" in row else of_text(tokenizer, row["text"])
        ids, labels = (part[:longest] for part in found)
        if any(label != IGNORED for label in labels[1:]):
            rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return Dataset.from_list(rows).with_format("torch")
