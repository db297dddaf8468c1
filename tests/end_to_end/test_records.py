"""What made a file can be proven, explained and compared; what was tampered with is named."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.workspace import Workspace

from reproduce import compare

RUNS = "results/runs/test-phi3/test-areas"
# An adapter on a quantized base, and all weights on several ranks.
REPRODUCED = ["qlora", "zero3"]


@contextmanager
def spoiled(path: Path, content: bytes) -> Iterator[None]:
    """A file with other content but equal times, put back afterwards."""
    before, times = path.read_bytes(), path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def work(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished experiment that a test may change."""
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(finished.path, copy.path, symlinks=True)
    return copy


def test_every_result_is_proven(finished: Workspace) -> None:
    shown = finished.script("verify.py")
    assert shown.returncode == 0, shown.stderr
    assert "belong to no current run" not in shown.stdout


OF_EACH_KIND = [
    "results/corpus/documentation.jsonl",
    "results/data/test-areas/train.jsonl",
    "results/models/test-phi3/base/model.safetensors",
    "results/models/test-phi3/pretraining.jsonl",
    "results/tokens/test-phi3/test-areas/test/test.safetensors",
    f"{RUNS}/lora/seed-1/adapter/adapter_model.safetensors",
    f"{RUNS}/lora/seed-1/train.jsonl",
    f"{RUNS}/zero3/seed-1/merged/model.safetensors",
    f"{RUNS}/full/seed-1/onnx/int4/model.onnx_data",
    f"{RUNS}/base/seed-0/evaluation/torch.predictions.jsonl",
    f"{RUNS}/base/seed-0/parity.json",
    "results/summary.csv",
    "results/report.html",
    "results/params.yaml",
]


@pytest.mark.parametrize("names", [OF_EACH_KIND, [f"{RUNS}/lora/seed-1/manifest.json"]], ids=["files", "a manifest"])
def test_one_changed_byte_is_found_by_name(finished: Workspace, names: list[str]) -> None:
    with ExitStack() as changed:
        for path in (finished.path / name for name in names):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            changed.enter_context(spoiled(path, bytes(content)))
        shown = finished.script("verify.py")
    assert shown.returncode == 1
    assert [name for name in names if name not in shown.stderr] == []
    assert "Traceback" not in shown.stderr


def test_a_missing_file_is_found_by_name(finished: Workspace) -> None:
    path = finished.path / RUNS / "lora/seed-1/onnx/int8/model.onnx_data"
    aside = path.with_name("aside")
    path.rename(aside)
    shown = finished.script("verify.py")
    aside.rename(path)
    assert shown.returncode == 1
    assert f"{path.relative_to(finished.path)} is missing" in shown.stderr


@pytest.mark.parametrize("edit", ["another hash", "no JSON"])
def test_a_manifest_edited_by_hand_stops_the_next_job_and_nothing_is_overwritten(work: Workspace, edit: str) -> None:
    run = work.path / RUNS / "lora/seed-1"
    text = (run / "manifest.json").read_text()
    known = json.loads(text)["files"]["adapter/adapter_model.safetensors"]["sha256"]
    (run / "manifest.json").write_text(text.replace(known, "0" * 64) if edit == "another hash" else text[:-20])
    shown = work.forked("--cores", "2", f"{RUNS}/lora/seed-1/merged/manifest.json")
    log = (work.path / "logs/merge/test-phi3/test-areas/lora/seed-1.log").read_text()
    assert shown.returncode != 0
    assert log.startswith("error: ")
    assert "delete it and run snakemake to make it again" in log
    assert "Traceback" not in log
    assert (run / "adapter/adapter_model.safetensors").is_file()


def test_data_made_again_with_equal_content_trains_nothing(work: Workspace) -> None:
    """A changed data script that writes the same bytes: after the data target, nothing is left to do."""
    work.edit("scripts/prepare_data.py", "MALFORMED_ON_HUB = ", "UNUSED = 1\nMALFORMED_ON_HUB = ")
    assert "train_adapter lora" in work.pending()
    made = work.forked("--cores", "2", "results/data/test-areas/manifest.json")
    assert made.returncode == 0, made.stderr
    assert work.pending() == {"record_results"}
    assert work.script("verify.py").returncode == 1, "the manifest of all results has the old one's hash"
    assert work.forked("--cores", "2").returncode == 0
    assert work.script("verify.py").returncode == 0


def test_edited_test_rows_train_nothing_once_they_are_tokenized(work: Workspace) -> None:
    """One call may cascade over what training reads; two calls don't."""
    work.edit("config/scenarios/test-areas.yaml", "test: 8", "test: 7")
    assert "train_adapter lora" in work.pending()
    tokens = "results/tokens/test-phi3/test-areas/training"
    before = (work.path / tokens / "manifest.json").read_text()
    assert work.forked("--cores", "2", f"{tokens}/manifest.json").returncode == 0
    assert (work.path / tokens / "manifest.json").read_text() == before
    pending = work.pending()
    assert {"evaluate_torch lora", "merge_adapter lora", "check_parity lora", "summarize"} <= pending
    assert not {job for job in pending if job.startswith("train_")}


def test_explain_says_what_made_a_file_and_why_it_would_be_made_again(finished: Workspace) -> None:
    name = f"{RUNS}/lora/seed-1/adapter/adapter_model.safetensors"
    shown = finished.script("explain.py", name, "--configfile", finished.experiment)
    assert shown.returncode == 0, shown.stderr
    for part in ("by rule: train_adapter", "lora_alpha: 16", "envs/train/requirements.txt", "Snakemake would not make"):
        assert part in shown.stdout
    path = finished.path / "config/techniques/lora.yaml"
    with spoiled(path, path.read_bytes().replace(b"r: 8", b"r: 4")):
        shown = finished.script("explain.py", name, "--configfile", finished.experiment)
    assert "adapter.options.r: 8 → 4" in shown.stdout, shown.stdout
    assert "Snakemake would run 1 job " in shown.stdout


def test_explain_gives_each_file_its_own_provenance(finished: Workspace) -> None:
    for name, directory in (
        ("adapter/adapter_config.json", "lora/seed-1"),
        ("merged/config.json", "lora/seed-1/merged"),
    ):
        path = finished.path / RUNS / directory / "provenance.json"
        content = json.loads(path.read_text())
        with spoiled(path, json.dumps({**content, "commit": "made by this one"}).encode()):
            shown = finished.script("explain.py", f"./{RUNS}/lora/seed-1/{name}", "--configfile", finished.experiment)
        assert "commit: made by this one" in shown.stdout, shown.stderr


def test_explain_of_another_file_is_one_clear_message(finished: Workspace) -> None:
    for name, message in (("results/none.csv", "no such file"), ("README.md", "no record of making it")):
        shown = finished.script("explain.py", name)
        assert shown.returncode == 1
        assert message in shown.stderr
        assert "Traceback" not in shown.stderr


def test_diff_names_what_differs_and_whether_it_mattered(finished: Workspace) -> None:
    shown = finished.script("diff_runs.py", f"{RUNS}/lora/seed-1", f"{RUNS}/dora/seed-1")
    assert shown.returncode == 0, shown.stderr
    assert "adapter.options.use_dora: False → True" in shown.stdout
    assert "inputs: equal" in shown.stdout
    assert "torch: accuracy" in shown.stdout
    assert "n = 32" in shown.stdout
    for other in ("results/runs", "results", "README.md", "nowhere/seed-1"):
        wrong = finished.script("diff_runs.py", f"{RUNS}/lora/seed-1", other)
        assert wrong.returncode == 1
        assert "is no finished run" in wrong.stderr
    for other, message in (
        (f"HEAD:{finished.path}/{RUNS}/lora/seed-1", "the repository names"),
        ("none:results", "DVC"),
    ):
        wrong = finished.script("diff_runs.py", f"{RUNS}/lora/seed-1", other)
        assert wrong.returncode == 1
        assert message in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_prune_lists_old_runs_and_deletes_only_when_told(work: Workspace) -> None:
    assert "every result belongs to the last run" in work.script("prune.py").stdout
    work.edit(work.experiment, "- dora\n", "")
    assert work.forked("--cores", "2").returncode == 0
    (work.path / RUNS / "lora/seed-1/evaluation/onnx-old.json").write_text("{}")
    # What an old run was made from may change: that is no break of the chain.
    (work.path / RUNS / "dora/seed-1/manifest.json").write_text("{")
    assert work.script("verify.py").returncode == 0
    shown = work.script("prune.py")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"not in the last run: {RUNS}/{name}" for name in ("dora", "lora/seed-1/evaluation/onnx-old.json")
    ]
    assert (work.path / RUNS / "dora/seed-1").is_dir()
    assert work.script("prune.py", "--delete").returncode == 0
    assert not (work.path / RUNS / "dora").exists()
    assert (work.path / RUNS / "lora/seed-1/evaluation/onnx-int8.json").is_file()
    assert "every result belongs to the last run" in work.script("prune.py").stdout
    assert work.script("verify.py").returncode == 0


def test_two_runs_in_one_directory_and_a_lock_of_a_killed_one_are_one_clear_message(finished: Workspace) -> None:
    locks = finished.path / ".snakemake/locks"
    name = "results/summary.csv"
    (locks / "0.output.lock").write_text(f"{name}\n")
    try:
        shown = finished.forked("--cores", "1", "--forcerun", "summarize")
    finally:
        (locks / "0.output.lock").unlink()
    text = shown.stdout + shown.stderr
    assert shown.returncode != 0
    assert "--unlock" in text
    assert "Traceback" not in text


@pytest.mark.long
def test_a_technique_of_each_kind_is_reproduced_byte_for_byte(finished: Workspace) -> None:
    runs = [f"{RUNS}/{name}/seed-1" for name in REPRODUCED]
    shown = finished.script("reproduce.py", *runs, "--configfile", finished.experiment)
    assert shown.returncode == 0, (shown.stdout + shown.stderr)[-4000:]
    assert shown.stdout.count("all byte-identical") == len(REPRODUCED), shown.stdout


def test_what_is_not_reproduced_is_said(
    finished: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, again = finished.path / RUNS / "lora/seed-1", tmp_path / "seed-1"
    shutil.copytree(run, again)
    assert compare(run, again, tolerance=0.03)
    (again / "train.jsonl").write_text("{}\n")
    assert not compare(run, again, tolerance=0.03)
    assert "of which 1 differ: train.jsonl" in capsys.readouterr().out
    provenance = json.loads((again / "provenance.json").read_text())
    provenance["hardware"]["processor"] = "another"
    (again / "provenance.json").write_text(json.dumps(provenance))
    assert compare(run, again, tolerance=0.03), "on another machine type the metrics decide"
    figures = json.loads((again / "evaluation/onnx-int8.json").read_text())
    figures["metrics"]["accuracy"] += 0.1
    (again / "evaluation/onnx-int8.json").write_text(json.dumps(figures))
    assert not compare(run, again, tolerance=0.03)
    assert "onnx-int8 accuracy" in capsys.readouterr().out


def test_a_run_that_this_checkout_would_make_otherwise_is_not_reproduced(finished: Workspace) -> None:
    path = finished.path / "config/techniques/lora.yaml"
    with spoiled(path, path.read_bytes().replace(b"r: 8", b"r: 4")):
        shown = finished.script("reproduce.py", f"{RUNS}/lora/seed-1", "--configfile", finished.experiment)
    assert shown.returncode == 1
    assert "differently than it was made" in shown.stderr
