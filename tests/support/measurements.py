"""The measured files of a whole experiment, made in a moment: every figure follows from a technique's skill."""

import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np

from snaketune.config.claims import COLUMNS
from snaketune.config.tasks import LOWER_IS_BETTER
from snaketune.core.files import write_json, write_jsonl
from snaketune.core.paths import property_path

MIB = 2**20
HARDWARE = {"processor": "a processor", "cores": 2, "memory_bytes": 8 * 2**30, "gpu": False}
METRICS = {
    "domain": "perplexity",
    "classification": "accuracy",
    "ner": "entity_f1",
    "translation": "exact_match",
    "qa": "f1",
    "chat": "perplexity",
    "music": "abc_validity",
}
Recipe = dict[str, object]


def run_script(script: ModuleType, *arguments: object) -> None:
    with patch.object(sys, "argv", [script.__name__, *map(str, arguments)]):
        script.main()  # type: ignore[attr-defined]


def resources(
    seconds: float = 10.0, trainable: int = 1000, state: int = 300 * MIB, grown: int = 900 * MIB, ranks: int = 1
) -> Recipe:
    """Of one run; each rank holds the state, a third of each kind."""
    rank = {
        "peak_memory_bytes": 400 * MIB + grown,
        "imported_memory_bytes": 400 * MIB,
        **{f"{kind}_bytes": state // 3 for kind in ("weight", "gradient", "optimizer")},
    }
    return {
        "seconds": seconds,
        "cpu_seconds_of_rank_0": seconds,
        "train_tokens": 5000,
        "tokens_per_second": 5000 / seconds,
        "trainable_parameters": trainable,
        "total_parameters": 1000,
        "world_size": ranks,
        "threads_per_rank": 1,
        "peak_memory_bytes": rank["peak_memory_bytes"],
        "ranks": [rank] * ranks,
        "hardware": HARDWARE,
    }


def save_evaluation(run: Path, backend: str, metric: str, skill: float, rows: int, seed: int) -> None:
    """Test rows of which a share, the skill, are hits; a language model's loss falls with it."""
    random = np.random.default_rng([seed, *run.parent.name.encode()])
    hits = np.random.default_rng(5).random(rows) + random.normal(0, 0.05, rows) < skill
    statistics = [[(3 - 2 * hit) * 4, 4] if metric in LOWER_IS_BETTER else [int(hit), 1] for hit in hits.tolist()]
    answers = [{"reference": "a", "prediction": "ba"[int(hit)]} for hit in hits]
    write_jsonl(
        run / f"evaluation/{backend}.predictions.jsonl",
        [
            {"id": str(number), **({} if metric in LOWER_IS_BETTER else answer), "statistics": {metric: one}}
            for number, (answer, one) in enumerate(zip(answers, statistics, strict=True))
        ],
    )
    figures = {"n": rows, "decode_tokens_per_second": 100.0, "latency_p50_ms": 5.0}
    write_json(run / f"evaluation/{backend}.json", figures)


def save_run(run: Path, metric: str, skill: float, precisions: list[str], rows: int, seed: int, number: int) -> None:
    backends = ["torch", *(f"onnx-{name}" for name in precisions)]
    for backend in backends:
        save_evaluation(run, backend, metric, skill, rows, seed)
    untuned = run.parent.name == "base"
    owner, trained = (run.parents[4] / "models/tiny", "base/") if untuned else (run, "")
    for name in [f"{trained}manifest.json", *(f"onnx/{name}/manifest.json" for name in precisions)]:
        weights = "model.onnx_data" if "onnx" in name else "model.safetensors"
        write_json(
            owner / name,
            {"files": {weights: {"bytes": (1 + number) * MIB, "sha256": "0" * 64}}, "inputs": {}, "recipe": {}},
        )
    if precisions:
        hop = {"largest_logit_difference": 1e-5, "greedy_agreement": 1.0, "kl_divergence": 1e-9}
        write_json(
            run / "parity.json", {"hops": {"merged-onnx-fp32": hop}, "over_budget_hops": [], "without_budget": []}
        )
    if not untuned:
        curve = [
            {"step": step, "loss": 4 - 3 * skill * step / 20, "tokens": 100 * step, "learning_rate": 0.1}
            for step in range(1, 21)
        ]
        write_jsonl(run / "train.jsonl", [*curve[:-1], {**curve[-1], "validation_loss": 4 - 3 * skill}])
        write_json(run / "resources.json", resources(10.0 + number, grown=(900 - 40 * number) * MIB))


def save_experiment(
    results: Path,
    skills: dict[str, float],
    scenarios: list[str],
    seeds: list[int],
    precisions: list[str] | None = None,
    rows: int = 120,
) -> Recipe:
    """Every file of the runs that summary and report read; returns the recipe of both.

    Args:
        skills: of ``base`` and of each technique, from 0 to 1.
        scenarios: of METRICS, which names their primary metric.
    """
    precisions = precisions or []
    cells = []
    for scenario in scenarios:
        for number, (technique, skill) in enumerate(skills.items()):
            for seed in [0] if technique == "base" else seeds:
                cells.append(["tiny", scenario, technique, seed])
                run = results / f"runs/tiny/{scenario}/{technique}/seed-{seed}"
                save_run(run, METRICS[scenario], skill, precisions, rows, seed, number)
        card = {
            "kept": {"train": 100, "validation": 20, "test": rows},
            "read": 400,
            "dropped": {"near-duplicate of a kept row": 7},
            "labels": ["a", "b"] if scenario == "classification" else [],
            "majority_share_of_test": 0.5 if scenario == "classification" else None,
            "near_duplicates": "no kept text is a near-duplicate of another",
            "gate": {"verdict": "passed", "over_budget": []},
            "figures": {"leaks": {"of": 140, "rows": 1, "share": 0.007}, "majority": {"of": 0, "rows": 0, "share": 0}},
        }
        write_json(results / f"data/{scenario}/card.json", card)
        asked = [f"Which letter?\nquestion {number}" for number in range(rows)]
        test_rows = [
            {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": "a"}]} for one in asked
        ]
        if METRICS[scenario] in LOWER_IS_BETTER:
            test_rows = [{"text": one} for one in asked]
        write_jsonl(results / f"data/{scenario}/test.jsonl", [{"id": str(n), **row} for n, row in enumerate(test_rows)])
    return {
        "cells": cells,
        "scenarios": {
            name: {"primary_metric": METRICS[name], "higher_is_better": METRICS[name] not in LOWER_IS_BETTER}
            for name in scenarios
        },
        "precisions": dict.fromkeys(skills, precisions),
        "hosted": [],
        "calibrated": [],
        "benchmarked": False,
        "bootstrap_samples": 400,
        "confidence": 0.95,
        "techniques": {name: {} for name in skills if name != "base"},
        "training": {"epochs": 2, "batch_rows": 16},
        "models": {"tiny": "A small model."},
        "cards": {name: {"description": f"About {name}.", "licence": "MIT"} for name in scenarios},
    }


def table_recipe(
    scenarios: list[str], techniques: list[str], rounds: int = 3, expected: Recipe | None = None
) -> Recipe:
    """Of the published table, with properties where there are rounds."""
    named = [name for name in ("full", *COLUMNS.values()) if name in techniques] if rounds else []
    own = {name: 2 if name == "zero3" else 1 for name in named}
    runs = [[name, own[name], number + 1] for number in range(rounds) for name in named]
    runs += [[name, ranks, 1] for name in named for ranks in (1, 2, 4) if ranks != own[name]]
    properties = {
        "model": "large",
        "scenario": "domain",
        "steps": 4,
        "batch_rows": 16,
        "ranks": [1, 2, 4],
        "rounds": rounds,
        "seeds": [1],
    }
    return {
        "model": "tiny",
        "scenarios": scenarios,
        "techniques": techniques,
        "confidence": 0.95,
        "properties": properties if rounds else None,
        "property_runs": runs,
        "ranks": own,
        "offloaded": ["deepspeed"],
        "expected": expected or {},
    }


def save_properties(results: Path, recipe: Recipe, **changed: dict[tuple[int, int], Recipe]) -> None:
    """Each run like full's, unless its technique (``-`` written ``_``) says otherwise for (ranks, round)."""
    runs: list[tuple[str, int, int]] = recipe["property_runs"]  # type: ignore[assignment]
    for technique, ranks, number in runs:
        found = changed.get(technique.replace("-", "_"), {}).get((ranks, number)) or resources(ranks=ranks)
        write_json(results / property_path(technique, ranks, number) / "resources.json", found)
