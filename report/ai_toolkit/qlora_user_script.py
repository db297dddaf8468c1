"""Rows for Olive: chats of which only the answers are learnt, or plain texts.

Olive's own reader of chats would train on the questions too.
"""

from typing import Any

from chat_rendering import chat_tokens, settled_template
from datasets import Dataset
from olive.data.registry import Registry
from transformers import AutoTokenizer

# The label of a token that torch's cross-entropy leaves out.
IGNORED = -100


def of_chat(tokenizer: Any, messages: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    """Token ids of a chat, and the same as labels where they are an answer or its end token; several if need be."""
    return [
        (ids, [token if learned else IGNORED for token, learned in zip(ids, answers, strict=True)])
        for ids, answers in chat_tokens(tokenizer, messages)
    ]


def of_text(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Token ids of a text after the token that begins one, all learnt but that."""
    begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return begin + ids, [IGNORED] * len(begin) + ids


@Registry.register_pre_process()
def answers_of_chats(dataset: Any, model_name: str, longest: int, **_: Any) -> Dataset:
    """Rows of token ids and labels, cut at ``longest`` tokens; those with no answer left are dropped."""
    tokenizer = AutoTokenizer.from_pretrained(model_name, trust_remote_code=False)
    tokenizer.chat_template = settled_template(tokenizer)
    longest = min(longest, tokenizer.model_max_length)
    rows = []
    for row in dataset:
        found = of_chat(tokenizer, row["messages"]) if "messages" in row else [of_text(tokenizer, row["text"])]
        for ids, labels in ((ids[:longest], labels[:longest]) for ids, labels in found):
            if any(label != IGNORED for label in labels[1:]):
                rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return Dataset.from_list(rows).with_format("torch")
