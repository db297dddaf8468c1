"""Tokenize a scenario's rows with a model's own tokenizer and chat template, once for all techniques."""

from pathlib import Path
from typing import Any, TypedDict

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from snaketune.core import cli, errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.core.layout import MODEL_FILES, SPLITS, TEST_FILES, TRAINING_FILES
from snaketune.data.chat_rendering import Pair, chat_tokens, positions, text_tokens
from snaketune.data.formats import TEMPLATE_KEYS, exchange, write_prepared
from snaketune.data.raw_rows import Faults
from snaketune.data.tokens import Rows, answer_start, count_cut_references, over_limit, write_rows

Counts = dict[str, int]


class TokensParams(TypedDict):
    max_tokens: int
    truncated: float
    """Largest share of answer tokens that may be cut off."""
    gate: str
    novelty: bool
    """Whether answers are compared with those of the training rows."""


def of_row(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], longest: int) -> list[Pair]:
    """Return a row's sequences of tokens: several for a long text, and for some chats.

    Raises:
        ValueError: the model's template or tokenizer would change the text.
    """
    if "messages" in row:
        return chat_tokens(tokenizer, row["messages"], row.get("tools"))
    return text_tokens(tokenizer, row["text"], longest)


def reference_of(tokenizer: PreTrainedTokenizerBase, tokens: list[int], mask: list[bool]) -> str:
    """Return the last answer as evaluation decodes one that was generated: without its end token."""
    answer = tokens[answer_start(np.array(mask)) :]
    if answer and answer[-1] == tokenizer.eos_token_id:
        answer = answer[:-1]
    return str(tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()


def tokenize(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], longest: int, asked: bool, name: str, faults: Faults
) -> tuple[Rows, list[dict[str, Any]], Counts]:
    """Cut chats at ``longest`` tokens and drop those with no answer left; plain texts become several pieces.

    Test rows (``asked``) have the sequence of their last answer only, and are also dropped if nothing is left of it.
    The reference of one with calls or reasoning is what the model's template writes, as a generated answer is.

    Args:
        name: of these rows, before a row's id in ``faults``.

    Returns:
        The tokens, the rows that were kept, and counts of what was cut.
    """
    ids, answers, kept = list[np.ndarray](), list[np.ndarray](), list[dict[str, Any]]()
    count = dict.fromkeys(("answer_tokens", "lost_answer_tokens", "cut_rows", "dropped_rows", "longest"), 0)
    count["rows"] = len(rows)
    for row in rows:
        chat = "messages" in row
        try:
            pieces = of_row(tokenizer, row, longest)
        except ValueError as fault:
            faults.add(f"{name} row {row['id']}", str(fault))
            continue
        before = len(ids)
        if chat and asked:
            pieces = pieces[-1:]
        count["cut_rows"] += any(len(tokens) > longest for tokens, _ in pieces)
        for tokens, mask in pieces:
            count["answer_tokens"] += sum(mask)
            count["lost_answer_tokens"] += sum(mask[longest:])
            count["longest"] = max(count["longest"], len(tokens))
            first = max(1, answer_start(np.array(mask))) if asked else 1
            if any(mask[first:longest]):
                ids.append(np.array(tokens[:longest], dtype=np.int32))
                answers.append(np.array(mask[:longest], dtype=bool))
        if len(ids) > before:
            if chat and asked and not TEMPLATE_KEYS["assistant"].keys().isdisjoint(row["messages"][-1]):
                row = {**row, "reference": reference_of(tokenizer, *pieces[-1])}
            kept.append(row if chat else {**row, "pieces": len(ids) - before})
        else:
            count["dropped_rows"] += 1
    count["tokens"] = sum(map(len, ids))
    return Rows(ids, answers), kept, count


def card(
    counts: dict[str, Counts], longest: int, recipe: TokensParams, name: str, faults: Faults, references: Counts | None
) -> dict[str, Any]:
    """Return the counts of what was cut, and the gate's verdict; rows with ``faults`` were left out.

    ``references`` are counted where answers are generated.

    Raises:
        UserError: more completion tokens are lost than the budget allows, and the gate is `fail`; or all are.
    """
    limit, remedy = f"{longest} tokens", "raise `max_tokens` in the scenario (at most the model's context)"
    if longest < recipe["max_tokens"]:
        limit += ", all that the model takes"
        remedy = "choose a model of a longer context (`max_tokens` can't exceed it)"
    over = [f"{faults.count} rows were left out: {'; '.join(faults.shown)}"] if faults.count else []
    for split, count in counts.items():
        if count["dropped_rows"] == count["rows"]:
            raise UserError(f"{name}: {split}: no row has an answer within {limit}; shorten the texts, or {remedy}")
        share = count["lost_answer_tokens"] / max(1, count["answer_tokens"])
        if share > recipe["truncated"]:
            over.append(
                f"{split}: {100 * share:.1f} % of the answer tokens are lost, {count['cut_rows']} of {count['rows']} rows are longer than {limit} (the longest has {count['longest']}), expected at most {100 * recipe['truncated']:g} %"
            )
    if references and (sentence := over_limit(references, recipe["truncated"])):
        over.append(f"test: {sentence}")
    if over and recipe["gate"] == "fail":
        raise UserError(
            f"{name}: {'; '.join(over)}; shorten the texts, {remedy}, raise `budgets.truncated`, or set `gate: warn`"
        )
    for line in over:
        print(f"over budget: {name}: {line}")
    found = {"max_tokens": longest, "splits": counts, "over_budget": over, "passed": not over}
    return found | ({"references": references} if references else {})


def check_vocabulary(rows: Rows, tokenizer: PreTrainedTokenizerBase, base: Path) -> None:
    """Raise a UserError if a token has no embedding: the tokenizer was given tokens, the model wasn't."""
    size = files.read_json(base / "config.json").get("vocab_size")
    largest = max((int(ids.max()) for ids in rows.ids), default=0)
    if size is not None and largest >= size:
        raise UserError(
            f"{base}: the tokenizer writes {tokenizer.convert_ids_to_tokens(largest)!r} as token {largest}, but the model has embeddings for {size} tokens, 0 to {size - 1} (`vocab_size` of its config.json): use the tokenizer that belongs to the model, or enlarge the embeddings (resize_token_embeddings in transformers) and give that model as `path:`"
        )


def decoding(
    tokenizer: PreTrainedTokenizerBase, base: Path, kept: list[dict[str, Any]], data: Path, novelty: bool
) -> dict[str, Any]:
    """Return all else that evaluation needs, so that it imports no transformers and reads no training rows."""
    labels = files.read_json(data / "card.json")
    candidates = {}
    for label, answer in zip(labels["labels"], labels["answers"], strict=True):
        try:
            *_, (ids, answers) = chat_tokens(tokenizer, [*kept[0]["messages"][:-1], exchange("", answer)[1]])
        except ValueError as fault:
            raise UserError(f"{data.name}: label {label!r}: {fault}") from None
        candidates[label] = ids[answer_start(np.array(answers)) :]
        if twin := next((one for one in candidates if one != label and candidates[one] == candidates[label]), None):
            raise UserError(
                f"{data.name}: the labels {twin!r} and {label!r} have the same tokens with this model: rename one"
            )
    training = [row["reference"] for row in files.read_jsonl(data / "train.jsonl")] if novelty else []
    ends = files.read_json(base / "generation_config.json").get("eos_token_id", [])
    return {"candidates": candidates, "end": ends, "training": training}


def main() -> None:
    parser = cli.job_parser(
        __doc__, TokensParams, "--data-directory --output-directory", base_directory="the model, for its tokenizer"
    )
    parser.add_argument("--max-new-tokens", type=int, nargs="?", help="of a generated answer, where it is limited")
    arguments = parser.parse_args()
    recipe: TokensParams = arguments.recipe
    base, data, out = arguments.base_directory, arguments.data_directory, arguments.output_directory

    used = MODEL_FILES[1:]
    manifest.prove(base / "manifest.json", *used)
    manifest.prove(data / "manifest.json")
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    given = {split: files.read_jsonl(data / f"{split}.jsonl") for split in SPLITS}
    if not tokenizer.chat_template and "messages" in given["train"][0]:
        raise UserError(
            f"{base}: the tokenizer has no chat template; use an instruct model, or add chat_template to its tokenizer_config.json"
        )
    longest = min(recipe["max_tokens"], tokenizer.model_max_length, positions(base))
    name = f"{data.name} with {base.parent.name}"
    faults = Faults()
    made, counts = dict[str, Rows](), dict[str, Counts]()
    for split, rows in given.items():
        of_split = (split == "test", f"{name}: {split}", faults)
        made[split], kept, counts[split] = tokenize(tokenizer, rows, longest, *of_split)
        check_vocabulary(made[split], tokenizer, base)
        print(f"{split}: {counts[split]}")
    if recipe["gate"] == "fail" or not all(map(len, made.values())):
        faults.stop()
    generated = kept and "messages" in kept[0] and not files.read_json(data / "card.json")["labels"]
    references = count_cut_references(made["test"], arguments.max_new_tokens) if generated else None
    splits = {"training": SPLITS[:2], "test": SPLITS[2:]}
    cards = {
        part: card({split: counts[split] for split in splits[part]}, longest, recipe, name, faults, counted)
        for part, counted in (("training", None), ("test", references))
    }
    needed = decoding(tokenizer, base, kept, data, recipe["novelty"])

    write_prepared(out / "test/test.jsonl", kept)
    files.write_json(out / "test/decoding.json", needed)
    sources = {"training": [base / name for name in used if name != "generation_config.json"]}
    sources["test"] = [*(base / name for name in used), data / "card.json"]
    sources["test"] += [data / "train.jsonl"] if recipe["novelty"] else []
    for part, names in (("training", TRAINING_FILES), ("test", TEST_FILES)):
        files.write_json(out / part / "card.json", cards[part])
        for split in splits[part]:
            write_rows(out / part / f"{split}.safetensors", made[split])
            sources[part].append(data / f"{split}.jsonl")
        manifest.record(out / part, recipe, sources[part], [out / part / name for name in names])


if __name__ == "__main__":
    errors.run(main)
