"""Evaluate a model on a scenario's test split: `torch` (a merged model), an ONNX file or a genai package.

Decoding is deterministic: the most likely label for classification, otherwise greedy answers; the
likelihood of the reference answers is measured for every task.
"""

import itertools
import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from snaketune.core import cli, errors, files, manifest
from snaketune.data.tokens import Rows, count_cut_references, over_limit, read_rows
from snaketune.evaluation.metrics import statistics, summed
from snaketune.evaluation.speed import PythonLoop
from snaketune.inference.decoding import (
    Backend,
    answer_nll,
    candidate_likelihoods,
    generate,
    reference_nll,
)
from snaketune.inference.load import load, prove
from snaketune.inference.probe import write_probe


def prompt_agreement(backend: Backend, tokens: Rows, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the share of chats whose prompt a package's own tokenizer and template turn into the tokens trained on.

    A package asks for no reasoning, so chats that end with some aren't compared.
    """
    encode = getattr(backend, "encode", None)
    if encode is None or "messages" not in rows[0]:
        return {}
    chats = zip(tokens.prompts, rows, strict=True)
    equal = [
        list(prompt) == list(encode(row["messages"][:-1], row.get("tools")))
        for prompt, row in chats
        if not row["messages"][-1].get("reasoning_content")
    ]
    return {"prompt_agreement": float(np.mean(equal)), "prompts": len(equal)} if equal else {}


def stop_agreement(backend: Backend, tokens: Rows, ends: set[int], prompts: int) -> dict[str, Any]:
    """Return the share of prompts after which a package's own loop stops at the first end token, and nowhere else."""
    complete = getattr(backend, "complete", None)
    asked = [(prompt, len(ids) - len(prompt)) for prompt, ids in zip(tokens.prompts, tokens.ids, strict=True)]
    asked = [(prompt, length) for prompt, length in asked if len(prompt)][:prompts]
    if complete is None or not asked:
        return {}
    longest = max(length for _, length in asked)
    right, context = [], getattr(backend, "context", math.inf)
    for prompt, _ in asked:
        ids, most = complete(prompt, longest), min(longest, context - len(prompt))
        right.append(not ends.intersection(ids[:-1]) and (len(ids) == most or ids[-1] in ends))
    return {"stop_agreement": float(np.mean(right))}


def labelled(
    backend: Backend, tokens: Rows, candidates: dict[str, list[int]]
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return the likeliest label of each test row, and the negative log-likelihood of its reference in nats."""
    labels, ids = list(candidates), [np.array(label, dtype=np.int64) for label in candidates.values()]
    scores = candidate_likelihoods(backend, tokens.prompts, ids)
    chosen = [{"prediction": labels[int(best)]} for best in scores.argmax(1)]
    return chosen, reference_nll(backend, tokens, ids, scores)


def generated(
    backend: Backend, tokens: Rows, decoding: dict[str, Any], tokenizer: Tokenizer, recipe: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return a greedy answer to each test row."""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    counted = count_cut_references(tokens, recipe["max_new_tokens"])
    # Checked before training too, but the limit may have changed since.
    if sentence := over_limit(counted, recipe["truncated"]):
        if recipe["gate"] == "fail":
            raise errors.UserError(f"{sentence}, or set `gate: warn` in the scenario")
        print(f"over budget: {sentence}")
    made = generate(backend, tokens.prompts, set(decoding["end"]), counted["max_new_tokens"])
    return [
        {
            "prediction": tokenizer.decode(ids, skip_special_tokens=True).strip(),
            # What the reference has before its end token, such as the marker of a call, may be answered.
            "well_formed": ended and bool(ids) and not special.difference(row[len(prompt) : -1]).intersection(ids),
        }
        for (ids, ended), row, prompt in zip(made, tokens.ids, tokens.prompts, strict=True)
    ]


@np.errstate(invalid="ignore")
def predictions(
    backend: Backend,
    tokens: Rows,
    rows: list[dict[str, Any]],
    tokenizer: Tokenizer,
    decoding: dict[str, Any],
    recipe: Any,
) -> list[dict[str, Any]]:
    """Return each test row with its answer, its likelihood, which must be finite, and the statistics of its metrics."""
    decoding = {**decoding, "training": tuple(decoding["training"])}
    has_answers = "messages" in rows[0]
    made: list[dict[str, Any]] = [{} for _ in rows]
    if decoding["candidates"]:
        made, row_nll = labelled(backend, tokens, decoding["candidates"])
    else:
        if has_answers:
            made = generated(backend, tokens, decoding, tokenizer, recipe)
        row_nll = answer_nll(backend, tokens)
    # A long text is tokenized as several pieces, but its likelihood is one figure: pieces aren't independent.
    bounds = itertools.pairwise(itertools.accumulate((row.get("pieces", 1) for row in rows), initial=0))
    predicted = []
    for row, answer, (start, stop) in zip(rows, made, bounds, strict=True):
        nll = row_nll[start:stop].sum()
        if not math.isfinite(nll):
            raise errors.UserError(
                f"row {row['id']}: the negative log-likelihood of its answer is {nll:g}, expected a finite number: a weight or scale of the model is wrong or overflows: make the model again or choose another precision"
            )
        entry = {
            "id": row["id"],
            **({"reference": row["reference"]} if "reference" in row else {}),
            **answer,
            "nll": round(float(nll), 6),
            "answer_tokens": tokens.answer_tokens(range(start, stop)),
        }
        context = {"prompt": row["messages"][-2]["content"]} if has_answers else {"bytes": len(row["text"].encode())}
        predicted.append({**entry, "statistics": statistics(recipe["task"], {**entry, **context}, decoding)})
    return predicted


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        "task, max_new_tokens, truncated, gate, threads, speed_prompts, speed_tokens, share_prompts (where false), probe, device, precision",
        "--tokens-directory",
        model="model.safetensors of a merged model, or model.onnx; with genai_config.json in its directory, onnxruntime-genai runs it",
        output="evaluation/BACKEND.json; next to it, BACKEND.predictions.jsonl and BACKEND.logits.safetensors (the parity probe)",
    )
    parser.add_argument("--prefix", type=Path, nargs="?", help="trained keys and values that the model starts from")
    parser.add_argument(
        "--adapter",
        type=Path,
        nargs="?",
        help="exported adapter, if the model is a switchable base, or adapter_model.safetensors beside one for torch",
    )
    arguments = parser.parse_args()
    recipe, model, directory = arguments.recipe, arguments.model, arguments.tokens_directory
    prove(model)
    manifest.prove(directory / "manifest.json")
    if arguments.prefix:
        manifest.prove(arguments.prefix.parent / "manifest.json", arguments.prefix.name)

    chosen = {key: recipe[key] for key in ("device", "precision") if key in recipe}
    backend = load(model, arguments.prefix, recipe["threads"], adapter=arguments.adapter, **chosen)
    if not recipe.get("share_prompts", True):
        backend.shares_within, backend.pads = 0, False
    tokens = read_rows(directory / "test.safetensors")
    tokenizer = Tokenizer.from_file(str(model.parent / "tokenizer.json"))
    rows, decoding = files.read_jsonl(directory / "test.jsonl"), files.read_json(directory / "decoding.json")
    try:
        predicted = predictions(backend, tokens, rows, tokenizer, decoding, recipe)
    except errors.UserError as error:
        raise errors.UserError(f"{model}: {error}") from error
    metrics = summed(predicted)
    asked = [
        prompt if len(prompt) > 1 else ids[: max(2, len(ids) // 2)]
        for prompt, ids in zip(tokens.prompts, tokens.ids, strict=True)
    ]
    looped, new = PythonLoop(backend), recipe["speed_tokens"]
    times = [looped.generate(prompt[None].astype(np.int64), new + 1) for prompt in asked[: recipe["speed_prompts"]]]

    write_probe(arguments.output.with_suffix(".logits.safetensors"), backend, tokens, recipe["probe"])
    files.write_jsonl(arguments.output.with_suffix(".predictions.jsonl"), predicted)
    files.write_json(
        arguments.output,
        {
            "metrics": metrics,
            "n": len(predicted),
            **prompt_agreement(backend, tokens, rows),
            **stop_agreement(backend, tokens, set(decoding["end"]), recipe["speed_prompts"]),
            "decode_tokens_per_second": median(new / rest for _, rest in times),
            "latency_p50_ms": 1000 * median(first for first, _ in times),
            "hardware": manifest.hardware(),
            **chosen,
            "threads": recipe["threads"],
        },
    )
    shown = ", ".join(f"{name} {found:.3f}" for name, found in metrics.items())
    print(f"{arguments.output.stem}: {shown}, n = {len(predicted)}")


if __name__ == "__main__":
    errors.run(main)
