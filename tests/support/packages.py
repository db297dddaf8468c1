"""The files of one finished run that a package is made of, with figures of our choice."""

import csv
from pathlib import Path
from typing import Any

from snaketune.core.files import write_json
from snaketune.core.layout import GENAI_FILES
from snaketune.core.manifest import record
from support.measurements import HARDWARE

CELL = ["tiny", "tickets", "lora", 1]
RUN = "runs/tiny/tickets/lora/seed-1"
ROW = {
    "metric": "accuracy", "higher_is_better": "true", "value": 0.625, "ci_low": 0.5, "ci_high": 0.75, "n": 80,
    "base_value": 0.25, "delta": 0.375, "delta_ci_low": 0.21, "delta_ci_high": 0.53,
    "decode_tokens_per_second": 321.5, "latency_p50_ms": 4.25,
}  # fmt: skip
RECIPE: dict[str, Any] = {
    "cell": CELL,
    "precision": "genai-int4",
    "export": {"description": "4-bit weights.", "method": "genai", "options": {"weights": "int4"}},
    "model": {
        "description": "A small model.",
        "licence": "MIT",
        "hub": "owner/small",
        "revision": "a" * 40,
        "model_type": "phi3",
    },
    "scenario": {
        "description": "Route a ticket:\n  which team?",
        "licence": "CC BY-SA 4.0",
        "task": "classification",
        "prompt": "Which team?\n{text}",
        "hub": None,
        "revision": None,
        "languages": ["en"],
    },
    "technique": "Low-rank adapters.",
    "confidence": 0.95,
}
HOP = {
    "positions": 512,
    "greedy_agreement": 0.984375,
    "kl_divergence": 0.00042,
    "largest_logit_difference": 0.31,
    "share_of_fp32_bytes": 0.16,
}
PAIR = {"a": "base", "b": "lora", "difference": -0.375, "ci_low": -0.5, "ci_high": -0.1, "withheld": None}


def save_summary(results: Path, **changed: Any) -> None:
    """The rows of torch and of the package; ``changed`` is of the package's alone."""
    keys = dict(zip(("model", "scenario", "technique", "seed"), CELL, strict=True))
    rows = [{**keys, "backend": "torch", **ROW}, {**keys, "backend": "genai-int4", **ROW, **changed}]
    results.mkdir(parents=True, exist_ok=True)
    with (results / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def save_comparison(results: Path, seeds: tuple[int, ...] = (1,), better: bool = True, **changed: Any) -> None:
    """The report's comparison; ``better`` tells if each model of it is shown better than the untuned one."""
    sign = 1 if changed.get("higher_is_better", True) else -1
    low, high = sorted((0.2 * sign if better else -0.1 * sign, 0.5 * sign))
    ends = {"difference": 0.375 * sign, "ci_low": low, "ci_high": high}
    found = {
        "higher_is_better": True,
        "too_few": None,
        "seeds": list(seeds),
        "seeds_of": {"lora": list(seeds)},
        "values": {name: {"value": 0.6, "ci_low": 0.5, "ci_high": 0.7} for name in ("base", "lora")},
        "artifacts": [{"technique": "lora", "seed": seed, "withheld": None, **ends} for seed in seeds],
        "pairs": [{"claim": "technique" if len(seeds) > 1 else "artifact", **PAIR}],
    }
    write_json(results / "comparisons.json", [{"model": "tiny", "scenario": "tickets", **found, **changed}])


def save_parity(results: Path, *over_budget: str) -> None:
    changes = {"perplexity_change": 0.031, "metric_change": -0.0125, "prompt_agreement": 1.0}
    hops = dict.fromkeys(("adapter-merged", "merged-onnx-fp32", "onnx-fp32-int8"), HOP)
    hops["onnx-fp32-genai-int4"] = HOP | changes
    found = {"gate": "warn", "over_budget": list(over_budget), "passed": not over_budget, "without_budget": []}
    write_json(results / RUN / "parity.json", {**found, "hops": hops})


def save_data(results: Path) -> None:
    data = results / "data/tickets"
    card = {
        "read": 400,
        "kept": {"train": 200, "validation": 40, "test": 80},
        "dropped": {"duplicate of a kept row": 3, "over the number of rows": 77},
        "rows_are": "a text, and its label as the answer",
        "near_duplicates": "near-duplicates of a kept text were dropped",
        "labels": ["network", "billing"],
        "majority_share_of_test": 0.55,
        "gate": {"verdict": "marked", "over_budget": ["leaks"]},
        "figures": {"leaks": {"of": 120, "rows": 5}, "duplicates": {"of": 320, "rows": 3}},
    }
    write_json(data / "card.json", card)
    record(data, {}, [], [data / "card.json"])


def save_run(results: Path, model: Path | None = None) -> Path:
    """Every file below ``results`` of a tuned run, with the model of a genai export where there is one."""
    run = results / RUN
    export, merged, adapter = run / "onnx/genai-int4", run / "merged", run / "adapter/adapter_model.safetensors"
    for directory in (export, merged, adapter.parent):
        directory.mkdir(parents=True)
    for name in GENAI_FILES:
        (export / name).write_bytes((model / name).read_bytes() if model else f"{name}\n".encode())
    if not model:
        write_json(export / "genai_config.json", {"model": {"context_length": 2048}})
    record(export, {}, [], [export / name for name in GENAI_FILES])
    write_json(merged / "generation_config.json", {"eos_token_id": 2})
    record(merged, {}, [], [merged / "generation_config.json"])
    adapter.write_text("weights")
    options = {"adapter": {"type": "lora", "options": {"r": 8}}, "learning_rate": 0.0002, "seed": 1, "code": "c0de"}
    record(run, options, [], [adapter])
    spent = {"train_tokens": 5000, "seconds": 12.5, "peak_memory_bytes": 700 * 2**20, "world_size": 1}
    parameters = {"trainable_parameters": 98304, "total_parameters": 2557632}
    write_json(run / "resources.json", {**spent, **parameters, "hardware": HARDWARE})
    write_json(run / "evaluation/genai-int4.json", {"n": 80, "threads": 1, "hardware": HARDWARE})
    save_parity(results)
    save_data(results)
    save_summary(results)
    save_comparison(results)
    return run
