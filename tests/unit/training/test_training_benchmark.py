"""What the comparison of training with TRL computes from what it measured."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from snaketune.core.errors import UserError
from snaketune.evaluation import speed

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(params=["training", "table", "turns", "step"])
def module(request: Any, monkeypatch: Any) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module(request.param)


def epoch(seconds: float) -> dict[str, float]:
    return {"tokens": 100, "computed_tokens": 50, "cpu_seconds": seconds}


def kept(difference: float = 1e-6) -> dict[str, Any]:
    """Two rounds; in the second the machine was half as fast, and TRL's defaults had been left out."""
    first = {"ours-fp32": epoch(1), "ours-bf16": epoch(2), "trl-packed-fp32": epoch(2), "trl-grouped-fp32": epoch(4)}
    second = {arm: epoch(2 * one["cpu_seconds"]) for arm, one in first.items()}
    return {
        "asked": {"kinds": ["short"]},
        "differences": {"short": difference},
        "rounds": [{"short": {**first, "trl-defaults": epoch(10)}}, {"short": second}],
        "left_out": {"trl-defaults": "trl-defaults: no answer within 120 s"},
    }


def test_each_system_comes_first_equally_often() -> None:
    assert list(speed.in_turns(["a", "b", "c"], 4)) == [list("abc"), list("bca"), list("cab"), list("abc")]


@pytest.mark.parametrize("module", ["training"], indirect=True)
def test_ratios_are_of_one_round_with_the_best_of_each(module: Any) -> None:
    found = module.summary(kept())["short"]
    assert found["best"] == {"ours": "ours-fp32", "trl": "trl-packed-fp32"}
    assert found["tokens_per_cpu_second"]["ours-fp32"] == {"median": 75, "least": 50, "most": 100}
    assert found["over_tuned"] == {"median": 2, "least": 2, "most": 2, "n": 2}
    assert found["over_defaults"] == {"median": 10, "least": 10, "most": 10, "n": 1}


@pytest.mark.parametrize("module", ["training"], indirect=True)
@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_unequal_losses_give_no_ratio(module: Any, difference: float) -> None:
    with pytest.raises(UserError, match=r"short by .*; no ratio is given"):
        module.summary(kept(difference))
    with pytest.raises(UserError, match="they weren't compared; no ratio"):
        module.summary({**kept(), "differences": {}})


@pytest.mark.parametrize("module", ["turns"], indirect=True)
def test_an_interrupted_benchmark_goes_on_only_with_what_it_measured(module: Any, tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text(json.dumps({**kept(), "asked": {"threads": 1}}))
    assert len(module.kept(path, {"threads": 1})["rounds"]) == 2
    assert module.kept(path, {"threads": 2})["rounds"] == []


@pytest.mark.parametrize("module", ["training"], indirect=True)
def test_what_is_measured_is_not_measured_again(module: Any) -> None:
    arms = ["ours-fp32", "trl-packed-fp32"]
    assert not module.missing(kept(), arms, 2)
    assert module.missing(kept(), arms, 3)
    assert module.missing(kept(), [*arms, "dora-fp32"], 2)


@pytest.mark.parametrize("module", ["table"], indirect=True)
def test_the_table_says_what_was_left_out_and_where_it_was_measured(
    module: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    kinds = importlib.import_module("training").summary(kept())
    one = {"kinds": kinds, "differences": {"short": 1e-6}, "left_out": kept()["left_out"], "rounds": 2, "threads": 1}
    one["costs"] = {"short": {"ours-fp32_share_of_peak": {"median": 0.6, "least": 0.5, "most": 0.7}}}
    machine = {"processor": "A", "instructions": ["avx2"]}
    one |= {"hardware": machine, "versions": {"torch": "2"}, "commit": "c0ffee"}
    (tmp_path / "training.json").write_text(json.dumps({"sizes": {"2.6M": one}}))
    tokens = {"qa": {"shared": 0.8, "padded": 1.04, "least": 0.73}}
    call = {"seconds": 3.24, "trivial_seconds": 2.5}
    (tmp_path / "workflow.json").write_text(
        json.dumps({"computed_over_trained": tokens, "no_op": call, "commit": "c0ffee"})
    )
    taken = {
        "techniques": ["full", "lora"],
        "seconds": 300.4,
        "peers_seconds": 1200.0,
        "ratio": 0.25,
        "commit": "c0ffee",
    }
    (tmp_path / "peers.json").write_text(json.dumps(taken))
    readme = tmp_path / "README.md"
    places = "".join(f"<!-- {one} -->\n<!-- /{one} -->\n" for one in ("speed-costs", "speed-workflow", "speed-peers"))
    readme.write_text(f"{places}<!-- speed -->\nold\n<!-- /speed -->\nafter\n")
    monkeypatch.setattr("sys.argv", ["table", "--pages", str(readme), "--benchmarks", str(tmp_path)])
    module.main()
    written = readme.read_text()
    assert "| 2.6M | short | 75 (fp32) | 2.00 [2.00, 2.00] | 2.00 [2.00, 2.00] | did not end |" in written
    assert "`benchmarks/training.json`, at c0ffee: A (avx2), threads: 1; torch 2." in written
    assert "| 2.6M | short | 0.60 [0.50, 0.70] | – | – | – |" in written
    assert "`qa` 0.80 (padded 1.04, all rows in one batch 0.73). Finding the" in written
    assert "takes 3.2 CPU seconds; trivial rules over the same files take 2.5 (`benchmarks/workflow.json`" in written
    assert "full, lora of the default experiment" in written
    assert "300 s; a shell loop of TRL, optimum-cli and ONNX Runtime's programs: 1,200 s; ratio 0.25 (`" in written
    assert "old" not in written
    assert written.endswith("<!-- /speed -->\nafter\n")


@pytest.mark.parametrize("module", ["step"], indirect=True)
@pytest.mark.parametrize(
    ("name", "shapes", "part"),
    [
        ("aten::mm", [[373, 512], [512, 1920]], "PRODUCTS"),
        ("aten::mm", [[67, 512], [512, 8192]], "HEAD"),
        ("aten::addmm_", [[373, 512], [373, 8], [8, 512]], "ADAPTER"),
        ("aten::mm", [[1920, 512], [512, 8]], "NORMS"),
        ("aten::_embedding_bag_forward_only", [[67, 512], [67]], "ATTENTION"),
        ("aten::mul", [[1, 373, 512], []], "OTHER"),
        ("Optimizer.step#AdamW.step", [], "UPDATE"),
    ],
)
def test_an_operator_belongs_to_one_part_of_a_step(module: Any, name: str, shapes: list[list[int]], part: str) -> None:
    assert module.part_of(name, shapes, rank=8, tokens=373, vocabulary=8192) == getattr(module, part)


@pytest.mark.parametrize("module", ["table"], indirect=True)
def test_parts_of_a_step_are_shown_by_size(module: Any) -> None:
    one = {"milliseconds": 100.0, "computed_tokens": 9, "share_of_peak": 0.5, "parts": {"loss": 10.0, "head": 90.0}}
    lines = module.parts({"small": {"techniques": {"dora": one, "lora": one}}})
    assert lines[0] == "| CPU milliseconds of a step | small, lora | small, dora |"
    assert lines[2:4] == ["| head | 90 (90%) | 90 (90%) |", "| loss | 10 (10%) | 10 (10%) |"]
