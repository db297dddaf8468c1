"""What a plan recommends for a model that doesn't fit, and what of a job lies where."""

from pathlib import Path

import pytest

from snaketune.config.technique import Technique
from snaketune.core.files import read_yaml
from snaketune.dag.devices import disk_bytes, training_gpu_bytes, training_host_bytes
from snaketune.dag.estimates import FLOAT, training_memory
from snaketune.dag.fitting import fitting, variants
from snaketune.dag.shape import UNKNOWN

REPOSITORY = Path(__file__).parents[3]


def technique(name: str) -> Technique:
    return Technique.model_validate(read_yaml(REPOSITORY / f"config/techniques/{name}.yaml"))


def test_what_costs_nothing_is_recommended_before_what_changes_the_result() -> None:
    """Of the changes that are enough, the first keeps the weights' precision, the next the speed."""
    found = list(variants(technique("lora"), 512))
    assert found[0] == {}
    precisions = [change.get("base_precision") for change in found]
    assert precisions == sorted(
        precisions, key=lambda name: ["fp32", "bf16", "fp16", "int8", "nf4"].index(name or "fp32")
    )
    assert "nf4" in precisions
    # What can't be combined with the experiment's precision isn't recommended.
    computed = {change.get("base_precision") for change in variants(technique("lora"), 512, "fp16")}
    assert computed == {*precisions, "fp16"} - {"bf16"}
    assert all("base_precision" not in change for change in variants(technique("full"), 512))
    assert all("base_precision" not in change for change in variants(technique("peft-prefix"), 512) if change == {})


def test_a_change_is_only_recommended_if_it_is_enough() -> None:
    lora = technique("lora")

    def estimate(change: dict[str, object]) -> float:
        return 10 - 6 * ("base_precision" in change) - len(change)

    change, needed = fitting(lora, 512, estimate, 3) or ({}, 0)
    assert change["base_precision"]
    assert needed <= 3
    change, _ = fitting(lora, 512, estimate, 10) or ({}, 0)
    assert change  # what is there already is no recommendation
    assert fitting(lora, 512, estimate, -9) is None


@pytest.mark.parametrize("name", ["full", "lora", "qlora", "deepspeed", "zero3"])
def test_host_and_gpu_share_what_a_cpu_holds(name: str) -> None:
    chosen = technique(name)
    recipe = {**chosen.recipe("phi3"), "batch_rows": 16}
    ranks, whole = chosen.world_size, training_memory(recipe, UNKNOWN, 512)
    host, gpu = (of(recipe, UNKNOWN, 512) for of in (training_host_bytes, training_gpu_bytes))
    assert host > ranks * FLOAT * UNKNOWN.parameters
    offloaded = whole.optimizer if name == "deepspeed" else 0
    assert gpu == pytest.approx(whole.states + whole.buffers + whole.live - offloaded, rel=0.05)
    assert (host > ranks * (FLOAT * UNKNOWN.parameters + whole.optimizer)) == (name not in ("full", "zero3"))


def test_disk_is_what_a_step_leaves_and_needs_beside_it() -> None:
    model = FLOAT * UNKNOWN.parameters
    lora = {**technique("lora").recipe("phi3")}["adapter"]
    assert disk_bytes("merge_adapter", UNKNOWN, None) == (model, 0)
    assert disk_bytes("export_onnx", UNKNOWN, None, "fp32") == (model, 2 * model)
    assert disk_bytes("quantize_onnx", UNKNOWN, None, "fp16")[0] == model / 2
    assert disk_bytes("evaluate_onnx", UNKNOWN, None) == (0, 0)
    assert (
        disk_bytes("train_adapter", UNKNOWN, lora)[0] < model / 100 < disk_bytes("train_all_weights", UNKNOWN, None)[0]
    )
