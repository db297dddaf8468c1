"""Estimates of memory and time against models as transformers and peft build them, and the papers' formulas."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import Phi3Config, Phi3ForCausalLM

from snaketune.config.technique import Technique
from snaketune.dag import estimates
from snaketune.dag.estimates import FLOAT, training_bytes, training_memory
from snaketune.dag.needs import NEEDS, megabytes
from snaketune.dag.resources import memory_of_attempt
from snaketune.dag.shape import UNKNOWN, Shape
from snaketune.training.adapters import attach

REPOSITORY = Path(__file__).parents[3]
WIDTHS = {
    "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1920, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 8192, "tie_word_embeddings": True, "pad_token_id": 0,
}  # fmt: skip
SHAPE = Shape.of({**WIDTHS, "max_position_embeddings": 512})


def recipe(technique: str, ranks: int = 1, **changed: Any) -> dict[str, Any]:
    content = yaml.safe_load((REPOSITORY / f"config/techniques/{technique}.yaml").read_text())
    resolved = Technique.model_validate(content).recipe("phi3")
    return {**resolved, "world_size": ranks, "batch_rows": 16, **changed}


def model() -> Phi3ForCausalLM:
    """Of these widths, without weights."""
    with torch.device("meta"):
        return Phi3ForCausalLM(Phi3Config(**WIDTHS))


def test_parameters_are_those_of_the_model() -> None:
    assert SHAPE.parameters == sum(one.numel() for one in model().parameters())


@pytest.mark.parametrize("technique", ["lora", "dora", "peft-ia3", "peft-prefix"])
def test_trained_parameters_are_those_that_peft_makes(technique: str) -> None:
    adapter = recipe(technique)["adapter"]
    trained = [one.numel() for one in attach(model(), adapter).parameters() if one.requires_grad]
    assert estimates.adapter_parameters(SHAPE, adapter) == sum(trained)


@pytest.mark.parametrize("ranks", [2, 8])
def test_each_zero_stage_divides_what_its_paper_says(ranks: int) -> None:
    whole = FLOAT * SHAPE.parameters
    for stage in range(4):
        engine = {"type": "deepspeed", "zero_stage": stage, "offload": "none"}
        found = training_memory(recipe("full", ranks, engine=engine), SHAPE, 128)
        assert found.optimizer == pytest.approx(3 * whole / (ranks if stage >= 1 else 1))
        assert found.gradients == pytest.approx(whole / (ranks if stage >= 2 else 1))
        assert found.weights == pytest.approx(whole / (ranks if stage >= 3 else 1))


def test_a_quantized_base_takes_an_eighth_of_its_layers_and_more_rows_more() -> None:
    plain, quantized = (training_memory(recipe(name), UNKNOWN, 512) for name in ("lora", "qlora"))
    assert 0.12 < quantized.weights / plain.weights < 0.2
    assert training_bytes(recipe("lora"), UNKNOWN, 1024) > training_bytes(recipe("lora"), UNKNOWN, 512)
    assert training_bytes(recipe("lora"), UNKNOWN, 512) > training_bytes(
        recipe("lora", micro_batch_rows=1), UNKNOWN, 512
    )


def test_a_job_holds_all_its_ranks_and_what_launches_them() -> None:
    one = training_memory(recipe("zero2", 4), SHAPE, 128).total
    assert 4 * one < training_bytes(recipe("zero2", 4), SHAPE, 128) < 4 * one + 300e6


def test_twice_the_cores_halve_the_time_but_for_the_start() -> None:
    one, two = (estimates.training_seconds(10**9, 10**6, cores) for cores in (1, 2))
    assert (one - estimates.START_SECONDS) / (two - estimates.START_SECONDS) == pytest.approx(2)


def test_the_page_on_scale_says_what_a_plan_prints() -> None:
    text = (REPOSITORY / "docs/scale.md").read_text()
    start = text.index("| GB of memory to train |")
    names, _, *lines = ([cell.strip(" `") for cell in line.split("|")[2:-1]] for line in text[start:].split("\n")[:5])
    shape = Shape.of(yaml.safe_load((REPOSITORY / "config/models/phi-4-mini-instruct.yaml").read_text())["config"])
    alone = {"micro_batch_rows": 1}
    for line, changed in zip(lines, ({}, alone, {**alone, "gradient_checkpointing": True}), strict=True):
        asked = {name: training_bytes(recipe(name, **changed), shape, 512) for name in names}
        shown = dict(zip(names, map(int, line), strict=True))
        assert {name: round(memory_of_attempt(megabytes(needed), 1) / 1000) for name, needed in asked.items()} == shown
    asked = {kind: NEEDS[kind].bytes(shape.parameters) for kind in ("merge", "export", "quantize")}
    words = "Merging takes {merge:.0f} GB, exporting {export:.0f} and quantizing {quantize:.0f}."
    assert (
        words.format(**{kind: memory_of_attempt(megabytes(needed), 1) / 1000 for kind, needed in asked.items()}) in text
    )
