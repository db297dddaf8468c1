"""Rows for Olive: chats of which only the answers are learnt, or plain texts.

Olive's own reader of chats would train on the questions too.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from olive.data.registry import Registry
from transformers import AutoTokenizer

from snaketune.data.chat_rendering import chat_tokens, positions, text_tokens
from snaketune.data.settled_template import settled_template

# The label of a token that torch's cross-entropy leaves out.
IGNORED = -100


@Registry.register_pre_process()
def answers_of_chats(dataset: Any, model_name: str, longest: int, **_: Any) -> Dataset:
    """Rows of token ids and labels, cut at ``longest`` tokens; those with no answer left are dropped."""
    tokenizer = AutoTokenizer.from_pretrained(model_name, trust_remote_code=False)
    tokenizer.chat_template = settled_template(tokenizer)
    longest = min(longest, tokenizer.model_max_length, positions(Path(model_name)))
    rows = []
    for row in dataset:
        chat = "messages" in row
        found = chat_tokens(tokenizer, row["messages"]) if chat else text_tokens(tokenizer, row["text"], longest)
        for ids, learned in ((ids[:longest], learned[:longest]) for ids, learned in found):
            if any(learned[1:]):
                labels = [token if one else IGNORED for token, one in zip(ids, learned, strict=True)]
                rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return Dataset.from_list(rows).with_format("torch")
