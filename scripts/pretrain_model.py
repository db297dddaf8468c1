"""Build a model, by default a Phi-3: pre-train it on the corpus and measure its held-out perplexity, or keep random weights."""

import json
import math
import shutil
from typing import Any

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.core.hashing import hash_order
from snaketune.data.chat_template import PAD, render
from snaketune.data.tokens import Rows
from snaketune.training.batches import plan_batches
from snaketune.training.checkpoints import Checkpoints, checkpoint_key, stop_notice
from snaketune.training.loop import TrainingLoop
from snaketune.training.loss import mean_loss
from snaketune.training.memory import limit_threads
from snaketune.training.params import PRETRAINING_MAX_GRAD_NORM, PRETRAINING_WARMUP_SHARE, PretrainingParams
from snaketune.training.schedule import Plan

QUESTIONS = {
    "name": "What is this the documentation of?\n{text}",
    "kind": "Is this a class, a function, a method, a module or a reference?\n{text}",
    "next": "How does this documentation go on?\n{start}",
}


def texts(rows: list[dict[str, Any]], characters: int) -> list[str]:
    """Return half plain documentation, half chats about it.

    Adapters freeze the embeddings, so the chat tokens must be trained here: untrained, adapters stay at chance.
    """
    made = []
    for row in sorted(rows, key=lambda row: hash_order(row["module"] + row["name"])):
        text = " ".join(row["text"].split())[:characters]
        start, rest = text[: len(text) // 2], text[len(text) // 2 :]
        answers = {"name": row["name"] or row["module"], "kind": row["kind"], "next": rest}
        question = [None, None, "name", "name", "kind", "next"][int(hash_order(row["name"] + text)[:8], 16) % 6]
        made.append(render(QUESTIONS[question].format(text=text, start=start), answers[question]) if question else text)
    return made


def packed(tokenizer: Tokenizer, made: list[str], length: int, budget: int | None) -> np.ndarray:
    """Concatenate the texts, separated by the padding token: int32 of shape (rows, length)."""
    pad = int(tokenizer.token_to_id(PAD) or 0)
    ids: list[int] = []
    for encoded in tokenizer.encode_batch(made):
        ids += [pad, *encoded.ids]
    count = len(ids) if budget is None else min(budget, len(ids))
    return np.array(ids[: count // length * length], dtype=np.int32).reshape(-1, length)


def unigram_perplexity(train: np.ndarray, held_out: np.ndarray, vocabulary: int) -> float:
    """Return the perplexity of a unigram model with add-one smoothing, the baseline without context."""
    counts = np.bincount(train.ravel(), minlength=vocabulary) + 1
    return float(np.exp(-np.log(counts / counts.sum())[held_out[:, 1:]].mean()))


def build(recipe: PretrainingParams, tokenizer: Tokenizer) -> Any:
    """Return a model with random weights drawn from the seed."""
    torch.manual_seed(recipe["seed"])
    pad = tokenizer.token_to_id(PAD)
    end = tokenizer.token_to_id("<|end|>")
    family = recipe.get("model_type", "phi3")
    own = {"original_max_position_embeddings": recipe["context"]} if family == "phi3" else {}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            family,
            vocab_size=recipe.get("embeddings", recipe["vocabulary"]),
            max_position_embeddings=recipe["context"],
            pad_token_id=pad,
            bos_token_id=pad,
            eos_token_id=end,
            tie_word_embeddings=True,
            **own,
            **recipe["architecture"],
        )
    )
    model.generation_config = GenerationConfig(
        bos_token_id=pad, pad_token_id=pad, eos_token_id=[end, pad], do_sample=False
    )
    return model


def pretrain(
    model: Any,
    tokenizer: Tokenizer,
    corpus: list[dict[str, Any]],
    recipe: PretrainingParams,
    accelerator: Accelerator,
    checkpoints: Checkpoints,
    name: str,
    checkpoint_steps: int,
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """Return the trained model, its learning curve and its figures: perplexities, tokens and seconds."""
    train, held_out = (
        packed(
            tokenizer,
            texts([row for row in corpus if row["split"] == split], recipe["characters"]),
            recipe["sequence_length"],
            budget,
        )
        for split, budget in (("train", recipe["tokens"]), ("validation", recipe["held_out_tokens"]))
    )
    rows, held_out_rows = (
        Rows(list(part), [np.ones(len(row), dtype=bool) for row in part]) for part in (train, held_out)
    )
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe["learning_rate"],
        betas=(0.9, 0.95),
        weight_decay=recipe["weight_decay"],
        fused=True,
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    plan = Plan(
        batches=plan_batches(rows, recipe["batch_rows"], 1, recipe["seed"]),
        micro_batch_rows=recipe["batch_rows"],
        learning_rate=recipe["learning_rate"],
        warmup_share=PRETRAINING_WARMUP_SHARE,
        max_grad_norm=PRETRAINING_MAX_GRAD_NORM,
        checkpoint_steps=checkpoint_steps,
    )
    pad = model.config.pad_token_id
    fit = TrainingLoop(accelerator, model, optimizer, rows, pad, plan, checkpoints, name, interrupted=stop_notice())
    fit.run()
    plain = accelerator.unwrap_model(model)
    loss = mean_loss(plain, held_out_rows, fit.pad, accelerator.device, recipe["batch_rows"])
    figures = {
        "held_out_perplexity": math.exp(loss),
        "unigram_perplexity": unigram_perplexity(train, held_out, recipe["vocabulary"]),
        "held_out_tokens": int(held_out[:, 1:].size),
        "train_tokens": int(train.size),
        "seconds": fit.seconds,
        "cpu_seconds": fit.cpu_seconds,
    }
    return plain, fit.log, figures


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        PretrainingParams,
        "--corpus --tokenizer-directory",
        output_directory="receives base/, pretraining.jsonl and pretraining.json",
        work="directory for the checkpoints of an unfinished run",
    )
    parser.add_argument("--checkpoint-steps", type=int, default=100, help="steps between two checkpoints")
    arguments = parser.parse_args()
    recipe, out, base = arguments.recipe, arguments.output_directory, arguments.output_directory / "base"
    inputs = [arguments.corpus.parent / "manifest.json", arguments.tokenizer_directory / "manifest.json"]
    limit_threads(recipe["threads"])
    files.claim(arguments.work)
    for path in inputs:
        manifest.prove(path)

    tokenizer = Tokenizer.from_file(str(arguments.tokenizer_directory / "tokenizer.json"))
    model = build(recipe, tokenizer)
    log: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"train_tokens": 0}
    if recipe["tokens"]:
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        checkpoints = Checkpoints(accelerator, arguments.work, checkpoint_key(recipe, inputs))
        corpus = files.read_jsonl(arguments.corpus)
        model, log, figures = pretrain(
            model, tokenizer, corpus, recipe, accelerator, checkpoints, out.name, arguments.checkpoint_steps
        )
    with files.written_together(base) as aside:
        model.save_pretrained(aside, max_shard_size="1TB")
        for name in layout.TOKENIZER_FILES:
            shutil.copyfile(arguments.tokenizer_directory / name, aside / name)
    files.write_jsonl(out / "pretraining.jsonl", log)
    files.write_json(out / "pretraining.json", {**figures, "parameters": model.num_parameters()})
    manifest.record(base, recipe, inputs, [base / name for name in layout.MODEL_FILES])
    shutil.rmtree(arguments.work, ignore_errors=True)
    print(f"{model.num_parameters():,} parameters: {json.dumps(figures)}")


if __name__ == "__main__":
    errors.run(main)
