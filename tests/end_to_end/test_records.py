"""What made a file can be proven, explained and compared; what was tampered with is named."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from support.experiments import RUNS, run_of
from support.workspace import Workspace, refusal_of

from reproduce import compare
from snaketune.core.files import read_json, write_json

LORA = f"{RUNS}/lora/seed-1"
# An adapter on a quantized base, and all weights on several ranks.
REPRODUCED = ["qlora", "zero3"]


@contextmanager
def spoiled(path: Path, content: bytes) -> Iterator[None]:
    """A file with other content but equal times, put back afterwards."""
    before, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(content)
    os.utime(path, ns=times)
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=times)


def lower_rank(workspace: Workspace) -> AbstractContextManager[None]:
    path = workspace.path / "config/techniques/lora.yaml"
    return spoiled(path, path.read_bytes().replace(b"r: 8", b"r: 4"))


def test_every_result_is_proven(finished: Workspace) -> None:
    assert "belong to no current run" not in finished.told("verify.py")


OF_EACH_KIND = [
    "results/corpus/documentation.jsonl",
    "results/data/test-areas/train.jsonl",
    "results/models/test-phi3/base/model.safetensors",
    "results/models/test-phi3/pretraining.jsonl",
    "results/tokens/test-phi3/test-areas/test/test.safetensors",
    f"{LORA}/adapter/adapter_model.safetensors",
    f"{LORA}/train.jsonl",
    f"{RUNS}/zero3/seed-1/merged/model.safetensors",
    f"{RUNS}/full/seed-1/onnx/int4/model.onnx_data",
    f"{RUNS}/base/seed-0/evaluation/torch.predictions.jsonl",
    f"{RUNS}/base/seed-0/parity.json",
    "results/summary.csv",
    "results/report.html",
    "results/params.yaml",
]


@pytest.mark.parametrize("names", [OF_EACH_KIND, [f"{LORA}/manifest.json"]], ids=["files", "a manifest"])
def test_one_changed_byte_is_found_by_name(finished: Workspace, names: list[str]) -> None:
    with ExitStack() as changed:
        for path in (finished.path / name for name in names):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            changed.enter_context(spoiled(path, bytes(content)))
        said = refusal_of(finished.script("verify.py"))
    assert [name for name in names if name not in said] == []


def test_a_missing_file_is_found_by_name(finished: Workspace) -> None:
    path = finished.path / RUNS / "lora/seed-1/onnx/int8/model.onnx_data"
    aside = path.with_name("aside")
    path.rename(aside)
    shown = finished.script("verify.py")
    aside.rename(path)
    assert f"{path.relative_to(finished.path)} is missing" in refusal_of(shown)


@pytest.mark.parametrize("edit", ["another hash", "no JSON"])
def test_a_manifest_edited_by_hand_stops_the_next_job_and_nothing_is_overwritten(copy: Workspace, edit: str) -> None:
    run = run_of(copy)
    text = (run / "manifest.json").read_text()
    known = json.loads(text)["files"]["adapter/adapter_model.safetensors"]["sha256"]
    (run / "manifest.json").write_text(text.replace(known, "0" * 64) if edit == "another hash" else text[:-20])
    shown = copy.forked("--cores", "2", f"{LORA}/merged/manifest.json")
    log = (copy.path / "logs/merge/test-phi3/test-areas/lora/seed-1.log").read_text()
    assert shown.returncode != 0
    assert log.startswith("error: ")
    assert "delete it and run snakemake to make it again" in log
    assert "Traceback" not in log
    assert (run / "adapter/adapter_model.safetensors").is_file()


def test_data_made_again_with_equal_content_trains_nothing(copy: Workspace) -> None:
    """A changed data script that writes the same bytes: after the data target, nothing is left to do."""
    copy.edit("scripts/prepare_data.py", "MALFORMED_ON_HUB = ", "UNUSED = 1\nMALFORMED_ON_HUB = ")
    assert "train_adapter lora" in copy.pending()
    copy.run("results/data/test-areas/manifest.json")
    assert copy.pending() == {"record_results"}
    assert copy.script("verify.py").returncode == 1, "the manifest of all results has the old one's hash"
    copy.run()
    copy.told("verify.py")


def test_edited_test_rows_train_nothing_once_they_are_tokenized(copy: Workspace) -> None:
    """One call may cascade over what training reads; two calls don't."""
    copy.edit("config/scenarios/test-areas.yaml", "test: 8", "test: 7")
    assert "train_adapter lora" in copy.pending()
    tokens = "results/tokens/test-phi3/test-areas/training"
    before = (copy.path / tokens / "manifest.json").read_text()
    copy.run(f"{tokens}/manifest.json")
    assert (copy.path / tokens / "manifest.json").read_text() == before
    pending = copy.pending()
    assert {"evaluate_torch lora", "merge_adapter lora", "check_parity lora", "summarize"} <= pending
    assert not {job for job in pending if job.startswith("train_")}


def test_explain_says_what_made_a_file_and_why_it_would_be_made_again(finished: Workspace) -> None:
    asked = (f"{LORA}/adapter/adapter_model.safetensors", "--configfile", finished.experiment)
    shown = finished.told("explain.py", *asked)
    for part in (
        "by rule: train_adapter",
        "lora_alpha: 16",
        "envs/train/requirements.txt",
        "Snakemake would not remake",
    ):
        assert part in shown
    with lower_rank(finished):
        shown = finished.told("explain.py", *asked)
    assert "adapter.options.r: 8 → 4" in shown
    assert "Snakemake would run 1 job " in shown


def test_explain_gives_each_file_its_own_provenance(finished: Workspace) -> None:
    for name, directory in (("adapter/adapter_config.json", ""), ("merged/config.json", "merged")):
        path = run_of(finished) / directory / "provenance.json"
        with spoiled(path, json.dumps({**read_json(path), "commit": "made by this one"}).encode()):
            shown = finished.told("explain.py", f"./{LORA}/{name}", "--configfile", finished.experiment)
        assert "commit: made by this one" in shown


def test_explain_of_another_file_is_one_clear_message(finished: Workspace) -> None:
    for name, message in (("results/none.csv", "no such file"), ("README.md", "no record of making it")):
        assert message in refusal_of(finished.script("explain.py", name))


def test_diff_names_what_differs_and_whether_it_mattered(finished: Workspace) -> None:
    shown = finished.told("diff_runs.py", LORA, f"{RUNS}/dora/seed-1")
    for part in ("adapter.options.use_dora: False → True", "inputs: equal", "torch: accuracy", "n = 32"):
        assert part in shown
    for other, message in (
        *((name, "isn't a finished run") for name in ("results/runs", "results", "README.md", "nowhere/seed-1")),
        (f"HEAD:{finished.path}/{LORA}", "relative to the repository"),
        ("none:results", "DVC"),
    ):
        assert message in refusal_of(finished.script("diff_runs.py", LORA, other))


def test_prune_lists_old_runs_and_deletes_only_when_told(copy: Workspace) -> None:
    assert "every result belongs to the last run" in copy.told("prune.py")
    copy.edit(copy.experiment, "- dora\n", "")
    copy.run()
    lora, dora = run_of(copy), run_of(copy, "dora")
    (lora / "evaluation/onnx-old.json").write_text("{}")
    # What an old run was made from may change: that is no break of the chain.
    (dora / "manifest.json").write_text("{")
    copy.told("verify.py")
    assert [line.split(" (")[0] for line in copy.told("prune.py").splitlines()] == [
        f"not in the last run: {RUNS}/{name}" for name in ("dora", "lora/seed-1/evaluation/onnx-old.json")
    ]
    assert dora.is_dir()
    copy.told("prune.py", "--delete")
    assert not dora.parent.exists()
    assert (lora / "evaluation/onnx-int8.json").is_file()
    assert "every result belongs to the last run" in copy.told("prune.py")
    copy.told("verify.py")


def test_two_runs_in_one_directory_and_a_lock_of_a_killed_one_are_one_clear_message(finished: Workspace) -> None:
    lock = finished.path / ".snakemake/locks/0.output.lock"
    lock.write_text("results/summary.csv\n")
    try:
        shown = finished.forked("--cores", "1", "--forcerun", "summarize")
    finally:
        lock.unlink()
    text = shown.stdout + shown.stderr
    assert shown.returncode != 0
    assert "--unlock" in text
    assert "Traceback" not in text


@pytest.mark.long
def test_a_technique_of_each_kind_is_reproduced_byte_for_byte(finished: Workspace) -> None:
    runs = [f"{RUNS}/{name}/seed-1" for name in REPRODUCED]
    shown = finished.told("reproduce.py", *runs, "--configfile", finished.experiment)
    assert shown.count("all byte-identical") == len(REPRODUCED), shown


def test_what_is_not_reproduced_is_said(
    finished: Workspace, copy: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run, again = run_of(finished), run_of(copy)
    assert compare(run, again, tolerance=0.03)
    (again / "train.jsonl").write_text("{}\n")
    assert not compare(run, again, tolerance=0.03)
    assert "of which 1 differ: train.jsonl" in capsys.readouterr().out
    provenance = read_json(again / "provenance.json")
    provenance["hardware"]["processor"] = "another"
    write_json(again / "provenance.json", provenance)
    assert compare(run, again, tolerance=0.03), "on another machine type the metrics decide"
    figures = read_json(again / "evaluation/onnx-int8.json")
    figures["metrics"]["accuracy"] += 0.1
    write_json(again / "evaluation/onnx-int8.json", figures)
    assert not compare(run, again, tolerance=0.03)
    assert "onnx-int8 accuracy" in capsys.readouterr().out


def test_a_run_that_this_checkout_would_make_otherwise_is_not_reproduced(finished: Workspace) -> None:
    with lower_rank(finished):
        shown = finished.script("reproduce.py", LORA, "--configfile", finished.experiment)
    assert "differently now" in refusal_of(shown)
