"""Other precisions, optimizers and ways to save memory: each learns what plain fp32 training does, or is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from support.merges import assert_merged_alike
from support.models import tiny_phi3
from support.training_runs import recipe_of, rows_to_learn
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, LlamaConfig, PhiConfig, Qwen3MoeConfig

from snaketune.config.technique import FAST_PATHS, Technique
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml
from snaketune.dag.estimates import training_memory
from snaketune.dag.recipes import Recipes
from snaketune.dag.shape import UNKNOWN
from snaketune.inference.load import load
from snaketune.inference.torch_backend import TorchBackend
from snaketune.training import loop, loss, recomputation
from snaketune.training.adapters import attach, load_adapter, merge
from snaketune.training.base_model import dtype_of, load_base
from snaketune.training.batches import collate, cut, plan_batches
from snaketune.training.checkpoints import Checkpoints, checkpoint_key
from snaketune.training.engines import accelerator_for, optimizer_for
from snaketune.training.loop import TrainingLoop
from snaketune.training.loss import answer_loss, mean_loss
from snaketune.training.prefix import write_prefix
from snaketune.training.recomputation import recompute
from snaketune.training.schedule import Plan

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
ROWS = rows_to_learn(16, 1)
LENGTHS = [len(ids) for ids in ROWS.ids]
BATCH = collate(ROWS, list(range(16)), 0, CPU)
pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0),
    "granite": GraniteConfig(**SIZES, logits_scaling=3.0),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "phi": PhiConfig(**SIZES),
}


def model_of(family: str) -> Any:
    torch.manual_seed(1)
    return (tiny_phi3(64) if family == "phi3" else AutoModelForCausalLM.from_config(FAMILIES[family])).train()


def learned(model: Any, skip_logits: bool = True) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a batch, and its gradients."""
    found = answer_loss(model, *BATCH, skip_logits=skip_logits)
    found.backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    return found.item(), gradients


@pytest.mark.parametrize("family", ["phi3", *FAMILIES])
def test_a_loss_in_chunks_is_that_of_all_logits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family)
    expected, gradients = learned(model, skip_logits=False)
    whole = mean_loss(model, ROWS, 0, CPU, skip_logits=False)
    assert learned(model)[0] == pytest.approx(expected, rel=1e-6)
    heads: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: heads.append(inputs[0].shape[-2]))
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 5 * 64)
    found, chunked = learned(model)
    assert found == pytest.approx(expected, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-4, atol=1e-6)
    # 48 labelled positions in tens of five, and the last position that the model computes as usual.
    assert sorted(heads) == [1, 3, 3, *[5] * 18]
    assert mean_loss(model, ROWS, 0, CPU) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("kind", [True, "feed-forward"])
@pytest.mark.parametrize("family", ["phi3", "llama", "gemma2"])
def test_what_is_computed_again_changes_no_bit(family: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter: Any = {"type": "lora", "options": {"r": 4, "target_modules": ["o_proj", "down_proj"]}}
    expected, gradients = learned(attach(model_of(family), adapter))
    packed: list[bool] = []
    made = recomputation.computed_again

    def counted(tensor: torch.Tensor, make: Any) -> Any:
        hooks = made(tensor, make)
        pack = hooks.pack_hook
        hooks.pack_hook = lambda saved: (packed.append(not isinstance(pack(saved), torch.Tensor)), pack(saved))[1]
        return hooks

    monkeypatch.setattr(recomputation, "computed_again", counted)
    model = model_of(family)
    recompute(model, kind)
    found, again = learned(attach(model, adapter))
    assert found == expected
    assert all(torch.equal(again[name], gradients[name]) for name in gradients)
    assert sum(packed) == (2 if kind == "feed-forward" else 0)


def test_feed_forward_layers_of_another_form_are_refused() -> None:
    with pytest.raises(UserError, match="feed-forward layers of PhiForCausalLM aren't down"):
        recompute(model_of("phi"), "feed-forward")
    model = model_of("llama")
    model.model.layers[1].mlp.register_forward_hook(lambda _, __, output: 2 * output)
    with pytest.raises(UserError, match="use true, which recomputes whole blocks"):
        recompute(model, "feed-forward")


@given(st.lists(st.integers(0, 15)), st.integers(1, 6), st.integers(1, 60))
def test_a_micro_batch_has_at_most_so_many_rows_and_tokens(numbers: list[int], rows: int, tokens: int) -> None:
    found = cut(numbers, ROWS, rows, tokens)
    assert [number for part in found for number in part] == numbers
    for part in found:
        assert 0 < len(part) <= rows
        assert len(part) == 1 or len(part) * max(LENGTHS[number] for number in part) <= tokens


def fit(work: Path, optimizer: str = "adamw", **limits: Any) -> TrainingLoop:
    accelerator = Accelerator(cpu=True)
    model = tiny_phi3(64, vocab_size=256).train()
    recipe: Any = {"learning_rate": 0.01, "weight_decay": 0.01, "optimizer": optimizer}
    model, made = accelerator.prepare(model, optimizer_for(model, recipe))
    key = checkpoint_key({"technique": optimizer, **limits}, [])
    plan = Plan(plan_batches(ROWS, 8, 3, 1), **{"micro_batch_rows": 8} | limits, **SCHEDULE)  # type: ignore[arg-type]
    return TrainingLoop(accelerator, model, made, ROWS, 0, plan, Checkpoints(accelerator, work, key), "run")


SCHEDULE = {"learning_rate": 0.01, "warmup_share": 0.0, "max_grad_norm": 1.0, "checkpoint_steps": 2}


def weights(run: TrainingLoop) -> dict[str, torch.Tensor]:
    return run.accelerator.unwrap_model(run.model).state_dict()


class Stopped(Exception):
    """Stands for a signal that ends the process."""


def stop() -> float:
    raise Stopped


def test_tokens_in_memory_at_once_do_not_change_the_result(tmp_path: Path) -> None:
    rows, tokens = fit(tmp_path / "rows"), fit(tmp_path / "tokens", micro_batch_tokens=20)
    for run in (rows, tokens):
        run.run()
    assert [entry["loss"] for entry in tokens.log] == pytest.approx([entry["loss"] for entry in rows.log], rel=1e-4)
    for name, tensor in weights(rows).items():
        torch.testing.assert_close(tensor, weights(tokens)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(
    ("name", "bytes_of_a_weight"), [("adamw", 8), ("adamw-8bit", 2), ("paged-adamw-8bit", 2), ("adafactor", 0.14)]
)
def test_every_optimizer_learns_and_resumes_with_the_same_bits(
    name: str, bytes_of_a_weight: float, tmp_path: Path
) -> None:
    whole = fit(tmp_path / "whole", name)
    whole.run()
    losses = [entry["loss"] for entry in whole.log]
    assert losses[-1] < losses[0] - 0.5
    embedding = whole.model.get_input_embeddings().weight
    states = whole.optimizer.state[embedding].items()
    kept = [one for key, one in states if isinstance(one, torch.Tensor) and not key.startswith("qmap")]
    held = sum(one.numel() * one.element_size() for one in kept)
    assert held == pytest.approx(bytes_of_a_weight * embedding.numel(), rel=0.1)
    with pytest.raises(Stopped):
        fit(tmp_path / "stopped", name).run(stop, 3)
    resumed = fit(tmp_path / "stopped", name)
    resumed.run()
    assert resumed.log == whole.log
    assert all(torch.equal(tensor, weights(whole)[key]) for key, tensor in weights(resumed).items())


@pytest.mark.parametrize(
    ("limits", "key"), [({}, "micro_batch_rows: 2"), ({"micro_batch_tokens": 100}, "micro_batch_tokens: 32")]
)
def test_out_of_memory_names_what_fits_and_the_run_goes_on_with_it(
    limits: dict[str, int], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole")
    whole.run()
    told = fit(tmp_path / "told", **limits)

    def short(model: Any, inputs: dict[str, Any], targets: torch.Tensor, **_: Any) -> torch.Tensor:
        if len(told.log) >= 3 and inputs["input_ids"].numel() > 40:
            raise torch.OutOfMemoryError
        return answer_loss(model, inputs, targets)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "answer_loss", short)
        with pytest.raises(UserError, match=rf"out of memory at step 4 of 6 .*set {key} .*checkpoint-0000003"):
            told.run()
    name, value = key.split(": ")
    resumed = fit(tmp_path / "told", **limits | {name: int(value)})
    resumed.run()
    assert len(resumed.log) == 6
    assert resumed.log[:3] == told.log
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], tensor, rtol=1e-3, atol=1e-4)


def test_not_even_one_row_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "answer_loss", full)
    with pytest.raises(UserError, match="rows of up to 14 tokens; lower max_tokens of the scenario"):
        fit(tmp_path).run()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    tiny_phi3(128, initializer_range=0.1).save_pretrained(directory)
    return directory


def logits(model: Any) -> np.ndarray:
    backend = TorchBackend(model)
    return np.concatenate([backend.forward(ids[None].astype(np.int64), None, len(ids))[0][0] for ids in ROWS.ids[:8]])


@pytest.mark.filterwarnings("ignore:Merge lora module to 8-bit")
@pytest.mark.parametrize(
    ("precision", "technique", "dtype", "atol"),
    [
        ("bf16", "lora", torch.bfloat16, 0.03),
        ("bf16", "dora", torch.bfloat16, 0.03),
        ("bf16", "peft-vera", torch.bfloat16, 0.03),
        ("fp16", "peft-ia3", torch.float16, 0.004),
        ("int8", "lora", torch.float32, 0.1),
        ("int8", "peft-ia3", torch.float32, 0.1),
        ("nf4", "peft-ia3", torch.float32, 1e-4),
    ],
)
def test_an_adapter_of_any_base_is_trained_in_fp32_and_merged_into_its_type(
    precision: str, technique: str, dtype: torch.dtype, atol: float, base: Path, tmp_path: Path
) -> None:
    recipe: Any = recipe_of(technique, base_precision=precision)
    model = attach(load_base(base, precision), recipe["adapter"]).train()
    optimizer = optimizer_for(model, recipe | {"learning_rate": 0.01})
    losses = []
    for _ in range(6):
        found = answer_loss(model, *BATCH)
        (found / 48).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(found.item())
    assert losses[-1] < losses[0]
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {torch.float32}
    model.save_pretrained(tmp_path)
    merged = merge(base, precision, tmp_path)
    assert {one.dtype for one in merged.parameters()} == {dtype}
    assert_merged_alike(base, precision, tmp_path, tmp_path)
    unmerged = logits(load_adapter(base, precision, tmp_path))
    np.testing.assert_allclose(logits(merged.float()), unmerged, atol=atol)
    assert np.abs(unmerged - logits(load_base(base, precision))).max() > atol


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("full", {"base_precision": "bf16"}, "all weights are trained in fp32"),
        ("peft-prefix", {"base_precision": "bf16"}, "needs its fp32 base at inference"),
        ("dora", {"base_precision": "int8"}, "use_dora can't be trained on base_precision int8"),
        ("lora-zero3", {"base_precision": "bf16"}, "DeepSpeed would make it fp32"),
        ("zero2", {"optimizer": "adamw-8bit"}, "optimizer adamw-8bit needs engine.type: torch"),
        ("lora", {"optimizer": "adam"}, "optimizer"),
        ("zero2", {"gradient_checkpointing": "feed-forward"}, "use true with DeepSpeed"),
        ("peft-prefix", {"gradient_checkpointing": True}, "would lose a prefix's keys and values: use feed-forward"),
        ("lora", {"gradient_checkpointing": "attention"}, "gradient_checkpointing"),
        ("lora", {"micro_batch_tokens": 0}, "micro_batch_tokens"),
    ],
)
def test_what_makes_no_sense_together_is_refused(name: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        validated(Technique, read_yaml(ROOT / f"config/techniques/{name}.yaml") | change, "the file")


def test_keys_left_at_their_defaults_are_in_no_recipe() -> None:
    own = {"optimizer", "gradient_checkpointing", "micro_batch_tokens", "stream_merge", *FAST_PATHS}
    assert not own & recipe_of("lora").keys()
    matrix = Recipes(read_yaml(ROOT / "config/config.yaml"), ROOT)
    assert matrix.merge_recipe("lora").keys() == {"base_precision", "threads"}
    assert "share_prompts" not in matrix.evaluation_recipe("classification")


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_what_needs_a_gpu_is_refused_without_one(precision: str) -> None:
    with pytest.raises(UserError, match=f"computing in {precision} needs a GPU"):
        accelerator_for(recipe_of("lora", compute_precision=precision), 0)  # type: ignore[arg-type]


def test_a_base_of_16_bits_is_computed_in_them() -> None:
    AcceleratorState._reset_state(True)
    accelerator = accelerator_for(recipe_of("lora", base_precision="bf16"), 0)  # type: ignore[arg-type]
    assert accelerator.mixed_precision == "bf16"
    AcceleratorState._reset_state(True)


def test_merging_into_16_bits_has_a_budget_of_its_own(tmp_path: Path) -> None:
    config = read_yaml(ROOT / "config/config.yaml")
    matrix = Recipes(config, ROOT)
    merging = {step: matrix.experiment.parity.budgets[step] for step in ("adapter-merged", "adapter-merged-bf16")}
    for name, step in (("lora", "adapter-merged"), ("qlora", "adapter-merged"), ("dora", "adapter-merged-bf16")):
        if name == "dora":
            matrix.techniques[name] = matrix.techniques[name].model_copy(update={"base_precision": "bf16"})
        budgets = matrix.parity_recipe("classification", name)["budgets"]
        assert budgets["adapter-merged"] == merging[step].model_dump(exclude_none=True)
        assert "adapter-merged-bf16" not in budgets


def test_bits_within_a_budget_are_held_to_it_and_a_package_to_its_prompts() -> None:
    config = read_yaml(ROOT / "config/config.yaml") | {"precisions": ["fp32", "auto", "genai-auto"]}
    budgets = Recipes(config, ROOT).parity_recipe("classification", "lora")["budgets"]
    assert budgets["onnx-fp32-auto"] == {"kl_divergence": 0.02}
    of_package = Recipes(config, ROOT).experiment.parity.budgets["onnx-fp32-genai-int4"]
    for name in ("smallest_prompt_agreement", "smallest_stop_agreement"):
        assert budgets["onnx-fp32-genai-auto"][name] == getattr(of_package, name)


def test_memory_is_estimated_for_every_key() -> None:
    def needed(**changes: Any) -> Any:
        return training_memory(recipe_of("lora", micro_batch_rows=1, **changes), UNKNOWN, 512)

    plain = needed()
    for precision, share in (("bf16", 0.51), ("fp16", 0.51), ("int8", 0.28), ("nf4", 0.17)):
        assert needed(base_precision=precision).weights / plain.weights == pytest.approx(share, abs=0.02)
    assert needed(optimizer="adamw-8bit").optimizer / plain.optimizer == pytest.approx(0.26, abs=0.01)
    assert (
        needed(gradient_checkpointing=True).working
        < needed(gradient_checkpointing="feed-forward").working
        < plain.working
    )
    rows = training_memory(recipe_of("lora", micro_batch_rows=16, micro_batch_tokens=512, batch_rows=16), UNKNOWN, 512)
    assert rows.working == plain.working


def test_a_merged_model_runs_at_the_precision_asked_for_from_a_prefix_too(tmp_path: Path) -> None:
    model_of("llama").save_pretrained(tmp_path / "merged")
    prefix = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)
    write_prefix(tmp_path / "prefix.safetensors", [(prefix, prefix)] * SIZES["num_hidden_layers"])
    weights, ids = tmp_path / "merged/model.safetensors", np.array([[3, 4, 5]])
    found = {}
    for precision in ("fp32", "bf16", "fp16"):
        backend: Any = load(weights, tmp_path / "prefix.safetensors", 1, "cpu", precision)
        assert next(backend.model.parameters()).dtype == dtype_of(precision)
        found[precision] = backend.forward(ids, None, 3)[0]
        assert found[precision].dtype == np.float32
    for precision, difference in (("bf16", 0.02), ("fp16", 0.002)):
        assert 0 < np.abs(found[precision] - found["fp32"]).max() < difference


def test_a_gpu_that_is_asked_for_and_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`evaluation\.device` is cuda, but torch sees no GPU here"):
        load(tmp_path / "model.safetensors", None, 1, "cuda")
