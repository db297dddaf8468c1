"""What jobs ask for: by recipe and model, and never a reason to run again."""

import re
from pathlib import Path

import pytest
from support.experiments import OTHERS
from support.planning import plan, planned
from support.workspace import Workspace


def test_every_job_asks_for_memory_and_time_and_a_large_model_for_more(
    finished: Workspace, finished_others: Workspace
) -> None:
    small, large = plan(finished), plan(finished_others, "--resources", "gpu=4")
    for figures in (*small.values(), *large.values()):
        assert float(figures[3].replace(",", "")) >= 0.2
        expected, limit = (float(figure.replace(",", "")) for figure in figures[6:8])
        assert expected < limit >= 10
    for lines in (small, large):
        assert int(lines["all"][0]) == sum(int(line[0]) for line in lines.values()) - int(lines["all"][0])
    assert int(small["all"][0]) > 30
    assert (small["train_adapter"][2], large["train_adapter"][2]) == ("–", "1")
    assert float(large["train_adapter"][3]) > 4 * float(small["train_adapter"][3])


def test_each_of_several_nodes_is_asked_for_its_share_of_memory(finished: Workspace) -> None:
    one, two = (
        plan(finished, "--set-resources", f"train_all_weights:nodes={nodes}")["train_all_weights"][3]
        for nodes in ("None", "1 + (wildcards.technique == 'full')")
    )
    # Snakemake itself is on each node.
    assert float(two) - 0.28 == pytest.approx((float(one) - 0.28) / 2, abs=0.1)


@pytest.mark.parametrize("form", [{"ranks": {"full": 4}}, ["ranks={full: 4}"]], ids=str)
def test_a_profile_sets_the_ranks_of_its_machine(form: object, edited: Workspace) -> None:
    edited.write("profiles/wide/config.yaml", {"config": form})
    own, wide = (
        plan(edited, "--cores", "8", *profile)["train_all_weights"] for profile in ((), ("--profile", "profiles/wide"))
    )
    assert int(wide[1]) == 4 * int(own[1])
    assert float(wide[3]) > 2 * float(own[3])


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("scripts/snaketune/dag/estimates.py", "FRAGMENTATION = 1.5", "FRAGMENTATION = 3.0"),
        ("scripts/snaketune/dag/known_sizes.py", "ROWS_UNKNOWN = 2000", "ROWS_UNKNOWN = 9000"),
        ("rules/merge.smk", 'mem_mb=needs.memory("merge")', "mem_mb=99"),
    ],
)
def test_other_resources_run_nothing_again(edited: Workspace, name: str, old: str, new: str) -> None:
    edited.edit(name, old, new)
    assert edited.pending() == set()


def test_the_plan_of_a_finished_experiment_and_of_a_mistake(finished: Workspace, edited: Workspace) -> None:
    nothing = planned(finished)
    assert (nothing.returncode, nothing.stdout) == (0, "Nothing to do.\n")
    ignored = planned(finished, "--forceall", "--gpu-memory", "24")
    assert (ignored.returncode, "error: --gpu-memory is given, but no job gets a GPU" in ignored.stderr) == (1, True)
    edited.edit(edited.experiment, "- lora", "- lorra")
    mistaken = planned(edited)
    assert mistaken.returncode != 0
    assert "there is no technique 'lorra'" in mistaken.stdout + mistaken.stderr
    assert "Traceback" not in mistaken.stdout + mistaken.stderr


def test_a_plan_of_several_families_says_what_does_not_fit_before_a_download(edited_others: Workspace) -> None:
    models = ["qwen3-0.6b", "gemma-3-270m-it", "phi-4"]
    edited_others.write(edited_others.experiment, {**OTHERS, "models": models})
    machine = ("--resources", "gpu=8", "--gpu-memory", "60", "--memory", "70", "--disk", "200")
    told = planned(edited_others, "--forceall", *machine)
    assert told.returncode == 0, told.stderr
    _, _, large = told.stdout.split("\n\n")
    for words in (
        "Training full of phi-4 needs {n} GB of memory on a GPU; 60.0 are available. No setting makes it fit",
        "Training lora of phi-4 needs {n} .* With `.*` in config/techniques/lora.yaml it takes {n} GB.",
        "More memory than the 70.0 GB available: .*export_onnx of phi-4 {n} GB",
        "All files take {n} GB of disk; 200.0 are free.",
    ):
        assert re.search(words.format(n=r"[\d.]+"), large), words
    assert "export_onnx of qwen3" not in large


def test_a_job_gets_one_of_the_gpus_that_this_machine_has(
    edited: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    counted = plan(edited)
    assert {
        counted[name][2] for name in ("train_adapter", "train_all_weights", "evaluate_torch", "pretrain_model")
    } == {"1"}
    assert counted["export_onnx"][2] == "–"
    # Weights are loaded by the host; the rest is on the GPU.
    assert float(counted["train_all_weights"][4]) > 0.1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert plan(edited)["train_adapter"][2] == "–"
    assert edited.pending() == set()


def test_a_plan_elsewhere_leaves_out_what_only_linux_trains_with_one_message(edited: Workspace) -> None:
    edited.edit(edited.experiment, "- lora", "- lora\n- deepspeed\n- zero3")
    edited.edit("scripts/snaketune/config/matrix.py", 'sys.platform == "linux" or not out', "not out")
    shown = planned(edited, "--forceall")
    assert shown.returncode == 0, shown.stderr
    text = shown.stdout + shown.stderr
    assert "DeepSpeed runs on Linux only (WSL is Linux), and this is linux: deepspeed, zero3 left out" in text
    assert text.count("zero3") == 1
