"""Tokenize a scenario's rows with a model's own tokenizer and chat template, once for all techniques."""

from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from snaketune.core import cli, errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.core.layout import MODEL_FILES, SPLITS, TEST_FILES, TRAINING_FILES
from snaketune.data.tokens import Rows, answer_start, write_rows


class TokensParams(TypedDict):
    max_tokens: int
    truncated: float
    """Largest share of answer tokens that may be cut off."""
    gate: str
    novelty: bool
    """Whether answers are compared with those of the training rows."""


Pair = tuple[list[int], list[bool]]


@cache
def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return all special tokens: those of the chat format may lack a name in the tokenizer."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def of_messages(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> Pair:
    """Return the token ids of a conversation, and which belong to answers, end tokens included.

    Prompts and answers are tokenized separately, so that training sees the same tokens as inference;
    what the template writes after an answer's end token doesn't belong to it.
    """
    whole = str(tokenizer.apply_chat_template(messages, tokenize=False))
    ids: list[int] = []
    answers: list[bool] = []
    done = 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = str(tokenizer.apply_chat_template(messages[:number], tokenize=False, add_generation_prompt=True))
        answered = str(tokenizer.apply_chat_template(messages[: number + 1], tokenize=False))
        # Phi-4 ends a whole conversation with another token.
        if not whole.startswith(answered) and tokenizer.eos_token:
            answered = answered.removesuffix(tokenizer.eos_token)
        if not (whole.startswith(asked) and whole.startswith(answered) and answered.startswith(asked)):
            raise UserError(
                "the chat template's generation prompt isn't how it begins an answer: training would see another prompt than inference"
            )
        prompt = tokenizer(whole[done : len(asked)], add_special_tokens=False)["input_ids"]
        answer = tokenizer(whole[len(asked) : len(answered)], add_special_tokens=False)["input_ids"]
        ends = (i for i, token in enumerate(answer) if token in special_ids(tokenizer))
        length = next(ends, len(answer) - 1) + 1
        ids += prompt + answer
        answers += [False] * len(prompt) + [i < length for i in range(len(answer))]
        done = len(answered)
    last = len(answers) - answers[::-1].index(True)
    return ids[:last], answers[:last]


def of_text(tokenizer: PreTrainedTokenizerBase, text: str, longest: int) -> list[Pair]:
    """Return the token ids of a plain text, between the tokens that begin and end a sequence, in pieces of ``longest``.

    A piece begins with the last token of the one before: every token is predicted once, but the very first.
    """
    begin, end = ([one] if one is not None else [] for one in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    ids = begin + tokenizer(text, add_special_tokens=False)["input_ids"] + end
    starts = range(0, max(1, len(ids) - 1), max(1, longest - 1))
    pieces = [ids[start : start + longest] for start in starts]
    return [(piece, [False, *[True] * (len(piece) - 1)]) for piece in pieces]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], longest: int, asked: bool
) -> tuple[Rows, list[dict[str, Any]], dict[str, int]]:
    """Cut chats at ``longest`` tokens and drop those with no answer left; plain texts become several pieces.

    Test rows (``asked``) are also dropped if nothing is left of their last answer.

    Returns:
        The tokens, the rows that were kept, and counts of what was cut.
    """
    ids: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    kept: list[dict[str, Any]] = []
    count = dict.fromkeys(("answer_tokens", "lost_answer_tokens", "cut_rows", "dropped_rows", "longest"), 0)
    for row in rows:
        chat = "messages" in row
        pieces = [of_messages(tokenizer, row["messages"])] if chat else of_text(tokenizer, row["text"], longest)
        before = len(ids)
        for tokens, mask in pieces:
            count["answer_tokens"] += sum(mask)
            count["lost_answer_tokens"] += sum(mask[longest:])
            count["cut_rows"] += len(tokens) > longest
            count["longest"] = max(count["longest"], len(tokens))
            first = max(1, answer_start(np.array(mask))) if asked else 1
            if any(mask[first:longest]):
                ids.append(np.array(tokens[:longest], dtype=np.int32))
                answers.append(np.array(mask[:longest], dtype=bool))
        if len(ids) > before:
            kept.append(row if chat else {**row, "pieces": len(ids) - before})
        else:
            count["dropped_rows"] += 1
    return Rows(ids, answers), kept, count


def card(counts: dict[str, dict[str, int]], longest: int, recipe: TokensParams, name: str) -> dict[str, Any]:
    """Return the counts of what was cut, and the gate's verdict.

    Raises:
        UserError: more completion tokens are lost than the budget allows, and the gate is `fail`; or all are.
    """
    over = []
    for split, count in counts.items():
        if count["dropped_rows"] == count["rows"]:
            raise UserError(
                f"{name}: {split}: no row has an answer within {longest} tokens; shorten the texts, or raise `max_tokens` in the scenario (at most the model's context)"
            )
        share = count["lost_answer_tokens"] / max(1, count["answer_tokens"])
        if share > recipe["truncated"]:
            over.append(
                f"{split}: {100 * share:.1f} % of the answer tokens are lost, {count['cut_rows']} of {count['rows']} rows are longer than {longest} tokens (the longest has {count['longest']}), expected at most {100 * recipe['truncated']:g} %"
            )
    if over and recipe["gate"] == "fail":
        raise UserError(
            f"{name}: {'; '.join(over)}; shorten the texts, raise `max_tokens` in the scenario (at most the model's context), raise `budgets.truncated`, or set `gate: warn`"
        )
    for line in over:
        print(f"over budget: {name}: {line}")
    return {"max_tokens": longest, "splits": counts, "over_budget": over, "passed": not over}


def check_vocabulary(rows: Rows, tokenizer: PreTrainedTokenizerBase, base: Path) -> None:
    """Raise a UserError if a token has no embedding: the tokenizer was given tokens, the model wasn't."""
    size = files.read_json(base / "config.json").get("vocab_size")
    largest = max((int(ids.max()) for ids in rows.ids), default=0)
    if size is not None and largest >= size:
        raise UserError(
            f"{base}: the tokenizer writes {tokenizer.convert_ids_to_tokens(largest)!r} as token {largest}, but the model has embeddings for {size} tokens, 0 to {size - 1} (`vocab_size` of its config.json): take the tokenizer that belongs to the model, or enlarge the embeddings (resize_token_embeddings in transformers) and give that model as `path:`"
        )


def decoding(
    tokenizer: PreTrainedTokenizerBase, base: Path, kept: list[dict[str, Any]], data: Path, novelty: bool
) -> dict[str, Any]:
    """Return all else that evaluation needs, so that it imports no transformers and reads no training rows."""
    labels = files.read_json(data / "card.json")
    candidates = {}
    for label, answer in zip(labels["labels"], labels["answers"], strict=True):
        ids, answers = of_messages(tokenizer, [*kept[0]["messages"][:-1], {"role": "assistant", "content": answer}])
        candidates[label] = ids[answer_start(np.array(answers)) :]
    training = [row["reference"] for row in files.read_jsonl(data / "train.jsonl")] if novelty else []
    ends = files.read_json(base / "generation_config.json").get("eos_token_id", [])
    return {"candidates": candidates, "end": ends, "training": training}


def main() -> None:
    arguments = cli.job_parser(
        __doc__, TokensParams, "--data-directory --output-directory", base_directory="the model, for its tokenizer"
    ).parse_args()
    recipe: TokensParams = arguments.recipe
    data, out = arguments.data_directory, arguments.output_directory

    used = MODEL_FILES[1:]
    manifest.prove(arguments.base_directory / "manifest.json", *used)
    manifest.prove(data / "manifest.json")
    tokenizer = AutoTokenizer.from_pretrained(arguments.base_directory, trust_remote_code=False)
    given = {split: files.read_jsonl(data / f"{split}.jsonl") for split in SPLITS}
    if not tokenizer.chat_template and "messages" in given["train"][0]:
        raise UserError(
            f"{arguments.base_directory}: the tokenizer has no chat template; use an instruct model, or add chat_template to its tokenizer_config.json"
        )
    longest = min(recipe["max_tokens"], tokenizer.model_max_length)
    made: dict[str, Rows] = {}
    counts: dict[str, dict[str, int]] = {}
    kept: list[dict[str, Any]] = []
    for split, rows in given.items():
        made[split], kept, count = tokenize(tokenizer, rows, longest, asked=split == "test")
        check_vocabulary(made[split], tokenizer, arguments.base_directory)
        counts[split] = {"rows": len(rows), "tokens": made[split].tokens(range(len(made[split]))), **count}
        print(f"{split}: {counts[split]}")
    name = f"{data.name} with {arguments.base_directory.parent.name}"
    parts = {"training": SPLITS[:2], "test": SPLITS[2:]}
    cards = {
        part: card({split: counts[split] for split in splits}, longest, recipe, name) for part, splits in parts.items()
    }
    for part, splits in parts.items():
        files.write_json(out / part / "card.json", cards[part])
        for split in splits:
            write_rows(out / part / f"{split}.safetensors", made[split])
    files.write_jsonl(out / "test/test.jsonl", kept)
    files.write_json(
        out / "test/decoding.json", decoding(tokenizer, arguments.base_directory, kept, data, recipe["novelty"])
    )
    sources = {"training": ["train.jsonl", "validation.jsonl"], "test": ["test.jsonl", "card.json"]}
    sources["test"] += ["train.jsonl"] if recipe["novelty"] else []
    for part, names in (("training", TRAINING_FILES), ("test", TEST_FILES)):
        read = used if part == "test" else [name for name in used if name != "generation_config.json"]
        inputs = [*(arguments.base_directory / name for name in read), *(data / name for name in sources[part])]
        manifest.record(out / part, recipe, inputs, [out / part / name for name in names])


if __name__ == "__main__":
    errors.run(main)
