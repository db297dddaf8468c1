"""Tokenize a scenario's chats with a model's own tokenizer and chat template, once for all techniques."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from snaketune import errors, files, manifest
from snaketune.errors import UserError
from snaketune.layout import SPLITS, TEST_FILES, TOKENIZER_FILES, TRAINING_FILES
from snaketune.tokens import Rows, write_rows


def prompt_and_answer(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer with its end token, tokenized apart.

    The last message is the answer; what the template writes after the end token is left out.
    """
    prompt = str(tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True))
    whole = str(tokenizer.apply_chat_template(messages, tokenize=False))
    if not whole.startswith(prompt):
        raise UserError(
            "the chat template's generation prompt isn't how it begins an answer: training would see another prompt than inference"
        )
    answer = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    ends = set(tokenizer.all_special_ids)
    last = max((i for i, token in enumerate(answer) if token in ends), default=len(answer) - 1)
    return tokenizer(prompt, add_special_tokens=False)["input_ids"], answer[: last + 1]


def tokenize(tokenizer: PreTrainedTokenizerBase, path: Path, longest: int) -> Rows:
    ids, starts = [], []
    for row in files.read_jsonl(path):
        prompt, answer = prompt_and_answer(tokenizer, row["messages"])
        if len(prompt) + len(answer) > longest:
            raise UserError(
                f"{path}, row {row['id']}: {len(prompt) + len(answer)} tokens, but the limit is {longest}; shorten the texts, or raise `max_tokens` in the scenario (at most the model's context)"
            )
        ids.append(prompt + answer)
        starts.append(len(prompt))
    return Rows([np.array(row, dtype=np.int32) for row in ids], starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True, help='JSON: {"max_tokens": limit}')
    parser.add_argument("--base-directory", type=Path, required=True, help="the model, for its tokenizer")
    parser.add_argument("--data-directory", type=Path, required=True)
    parser.add_argument("--output-directory", type=Path, required=True)
    arguments = parser.parse_args()
    data, out = arguments.data_directory, arguments.output_directory

    used = ("config.json", *TOKENIZER_FILES)
    manifest.prove(arguments.base_directory / "manifest.json", *used)
    manifest.prove(data / "manifest.json")
    tokenizer = AutoTokenizer.from_pretrained(arguments.base_directory, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise UserError(
            f"{arguments.base_directory}: the tokenizer has no chat template; use an instruct model, or add chat_template to its tokenizer_config.json"
        )
    longest = min(arguments.recipe["max_tokens"], tokenizer.model_max_length)
    for split in SPLITS:
        rows = tokenize(tokenizer, data / f"{split}.jsonl", longest)
        write_rows(out / ("test" if split == "test" else "training") / f"{split}.safetensors", rows)
        print(f"{split}: {len(rows.ids)} rows, {sum(map(len, rows.ids))} tokens, longest {max(map(len, rows.ids))}")
    card = files.read_json(data / "card.json")
    some = files.read_jsonl(data / "test.jsonl")[0]["messages"][:-1]
    answers = {
        label: prompt_and_answer(tokenizer, [*some, {"role": "assistant", "content": answer}])[1]
        for label, answer in zip(card["labels"], card["answers"], strict=True)
    }
    files.write_json(out / "test/candidates.json", answers)
    shutil.copyfile(data / "test.jsonl", out / "test/test.jsonl")
    sources = {"training": ("train.jsonl", "validation.jsonl"), "test": ("test.jsonl", "card.json")}
    for part, names in (("training", TRAINING_FILES), ("test", TEST_FILES)):
        inputs = [*(arguments.base_directory / name for name in used), *(data / name for name in sources[part])]
        manifest.record(out / part, arguments.recipe, inputs, [out / part / name for name in names])


if __name__ == "__main__":
    errors.run(main)
