"""DVC records a run, an S3 server keeps it, and a clone gets it back, proven."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from snakemake.utils import update_config
from support.workspace import REPOSITORY, SHARED, Workspace

pytestmark = pytest.mark.long

BUCKET = "results"
RUN = "results/runs/test-phi3/test-areas/lora/seed-1"
IDENTITY = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def call(directory: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if check and ran.returncode:
        raise AssertionError(f"{' '.join(command)}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
    return ran


def dvc(directory: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return call(directory, sys.executable, "-m", "dvc", *arguments, check=check)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server, a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # A process of its own looks for updates and sends statistics after each command of DVC.
    keys = {
        "DVC_NO_ANALYTICS": "1",
        "CI": "1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # Commands that DVC runs find the programs of this environment, as after `activate`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    before = dict(os.environ)
    os.environ.update(IDENTITY, **keys, PATH=path)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
    yield address
    server.terminate()
    server.wait()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def origin(finished: Workspace, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository whose finished experiment was recorded by `dvc repro` and pushed to S3."""
    path = tmp_path_factory.mktemp("dvc") / "origin"
    shutil.copytree(finished.path, path, symlinks=True)
    config = yaml.safe_load((path / "config/config.yaml").read_text())
    update_config(config, yaml.safe_load((path / finished.experiment).read_text()))
    (path / "config/config.yaml").write_text(yaml.safe_dump(config))
    dvc(path, "remote", "add", "--default", "s3", f"s3://{BUCKET}/store")
    dvc(path, "remote", "modify", "s3", "endpointurl", s3)
    dvc(path, "remote", "modify", "s3", "verify", "true")
    call(path, "git", "init", "--initial-branch=main")
    call(path, "git", "add", ".")
    call(path, "git", "commit", "--message=code")
    recorded = dvc(path, "repro")
    assert "Nothing to be done" in recorded.stdout + recorded.stderr
    call(path, "git", "add", "dvc.lock")
    call(path, "git", "commit", "--message=run")
    dvc(path, "push")
    return path


def cloned(origin: Path, path: Path) -> Workspace:
    call(path.parent, "git", "clone", "--quiet", str(origin), str(path))
    for name in SHARED:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).symlink_to(REPOSITORY / name)
    return Workspace(path, "config/config.yaml")


@pytest.fixture(scope="module")
def clone(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A fresh clone, restored from S3."""
    workspace = cloned(origin, tmp_path_factory.mktemp("clone") / "clone")
    restored = workspace.script("restore.py")
    assert restored.returncode == 0, restored.stderr
    assert "Snakemake has nothing to do" in restored.stdout
    return workspace


def test_a_restored_clone_has_nothing_to_do_and_every_hash_holds(origin: Path, clone: Workspace) -> None:
    shown = clone.forked("--dry-run")
    assert "Nothing to be done" in shown.stdout + shown.stderr
    assert clone.script("verify.py").returncode == 0
    name = f"{RUN}/adapter/adapter_model.safetensors"
    assert (clone.path / name).read_bytes() == (origin / name).read_bytes()
    assert "changed outs" not in dvc(clone.path, "status").stdout


def test_metrics_params_and_plots_are_read_by_dvc(clone: Workspace) -> None:
    metrics = json.loads(dvc(clone.path, "metrics", "show", "--json").stdout)[""]["data"]["results/metrics.json"]
    found = metrics["data"]["test-phi3"]["test-areas"]["lora"]["seed-1"]
    assert found.keys() == {"torch", "onnx-fp32", "onnx-int8", "onnx-int4"}
    shown = dvc(clone.path, "plots", "show", "--out", "plots").stdout
    page = Path(shown.strip().removeprefix("file://"))
    text = page.read_text()
    for part in (
        "test-phi3/test-areas/zero3/seed-1",
        "Quality against peak memory",
        "Training loss per completion token",
    ):
        assert part in text
    assert text.count('"backend": "torch"') + text.count('"backend":"torch"') >= 8


def test_an_experiment_runs_only_what_its_change_touches_and_is_compared(clone: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in (clone.path / "results").rglob("*") if path.is_file()}
    name = "config/techniques/lora.yaml:adapter.options.r=4"
    dvc(clone.path, "exp", "run", "--name", "rank-4", "--set-param", name)
    changed = {p.relative_to(clone.path) for p, time in before.items() if p.stat().st_mtime_ns != time}
    runs = {path.parts[4] for path in changed if path.parts[1] == "runs"}
    assert runs == {"lora"}
    assert {path.parts[1] for path in changed} == {
        "runs",
        *("summary.csv", "comparisons.json", "metrics.json", "technique_table.json", "report.html", "plots"),
        *("params.yaml", "manifest.json", "provenance.json"),
    }
    params = json.loads(dvc(clone.path, "params", "diff", "--json").stdout)
    flat = params["results/params.yaml"]["techniques.lora.adapter.options.r"]
    assert (flat["old"], flat["new"]) == (8, 4)
    assert "results/metrics.json" in dvc(clone.path, "metrics", "diff", "--json", "--all").stdout
    page = dvc(clone.path, "plots", "diff", "HEAD", "--out", "plots").stdout.strip().removeprefix("file://")
    assert '"rev": "HEAD"' in Path(page).read_text() or '"rev":"HEAD"' in Path(page).read_text()
    compared = clone.script("diff_runs.py", f"HEAD:{RUN}", RUN)
    assert compared.returncode == 0, compared.stderr
    assert "adapter.options.r: 8 → 4" in compared.stdout
    untuned = str(Path(RUN).parents[1] / "base/seed-0")
    compared = clone.script("diff_runs.py", f"HEAD:{untuned}", untuned)
    assert compared.returncode == 0, compared.stderr
    assert clone.script("verify.py").returncode == 0
    refused = clone.script("restore.py")
    assert refused.returncode == 1
    assert "uncommitted changes (config/techniques/lora.yaml first)" in refused.stderr
    call(clone.path, "git", "checkout", "--quiet", ".")
    refused = clone.script("restore.py")
    assert refused.returncode == 1
    assert "differ from dvc.lock" in refused.stderr
    assert clone.script("restore.py", "--force").returncode == 0
    assert clone.pending() == set()
    assert clone.script("verify.py").returncode == 0


def test_what_was_added_after_a_restore_is_all_that_runs(clone: Workspace) -> None:
    clone.edit("config/config.yaml", "seeds:\n- 1", "seeds:\n- 1\n- 2")
    jobs = {job for job in clone.pending() if job.startswith(("train", "pretrain", "prepare", "tokenize"))}
    assert jobs
    assert all(job.endswith("seed 2") for job in jobs)
    call(clone.path, "git", "checkout", "--quiet", ".")


def object_of(clone: Workspace, name: str) -> str:
    """The md5 that dvc.lock holds for a file of results/."""
    [md5] = [
        out["md5"]
        for out in yaml.safe_load((clone.path / "dvc.lock").read_text())["stages"]["experiment"]["outs"]
        if out["path"] == "results"
    ]
    listing = json.loads((clone.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_text())
    return next(entry["md5"] for entry in listing if entry["relpath"] == name.removeprefix("results/"))


def test_a_corrupt_cache_object_is_refused_by_name_and_nothing_is_changed(clone: Workspace) -> None:
    name = f"{RUN}/adapter/adapter_model.safetensors"
    md5 = object_of(clone, name)
    stored = clone.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    good = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(good[:-1] + b"x")
    # DVC trusts what is write-protected, as it leaves each object itself.
    stored.chmod(0o444)
    (clone.path / name).unlink()
    refused = clone.script("restore.py")
    assert refused.returncode == 1
    assert name in refused.stderr
    assert "is corrupt" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (clone.path / name).exists()
    stored.unlink()
    assert clone.script("restore.py").returncode == 0
    assert (clone.path / name).read_bytes() == good


def test_a_corrupt_or_missing_object_of_the_remote_is_refused(
    clone: Workspace, origin: Path, s3: str, tmp_path: Path
) -> None:
    client = boto3.client("s3", endpoint_url=s3)
    md5 = object_of(clone, f"{RUN}/train.jsonl")
    key = f"store/files/md5/{md5[:2]}/{md5[2:]}"
    good = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    for spoil in (
        lambda: client.put_object(Bucket=BUCKET, Key=key, Body=b"garbage"),
        lambda: client.delete_object(Bucket=BUCKET, Key=key),
    ):
        spoil()
        work = cloned(origin, tmp_path / f"clone-{time.monotonic_ns()}")
        refused = work.script("restore.py")
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: ")
        assert "Traceback" not in refused.stderr
        assert not (work.path / "results").exists()
    client.put_object(Bucket=BUCKET, Key=key, Body=good)


def test_a_remote_that_is_not_there_is_one_clear_message(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    work = cloned(origin, tmp_path / "clone")
    dvc(work.path, "remote", "modify", "--local", "s3", "endpointurl", "http://127.0.0.1:9")
    refused = work.script("restore.py")
    assert refused.returncode == 1
    assert "`dvc fetch` failed" in refused.stderr
    assert "dvc remote modify --local" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_without_a_recorded_run_or_beside_another_snakemake_restore_refuses(origin: Path, tmp_path: Path) -> None:
    work = cloned(origin, tmp_path / "clone")
    (work.path / ".snakemake/locks").mkdir(parents=True)
    (work.path / ".snakemake/locks/0.output.lock").write_text("results/summary.csv\n")
    assert "--unlock" in work.script("restore.py").stderr
    call(work.path, "git", "rm", "--quiet", "dvc.lock")
    call(work.path, "git", "commit", "--quiet", "--message=none")
    assert "there is no dvc.lock" in work.script("restore.py").stderr


def test_the_default_remote_is_a_folder_beside_the_checkout(origin: Path, tmp_path: Path) -> None:
    first = cloned(origin, tmp_path / "first")
    assert first.script("restore.py").returncode == 0
    dvc(first.path, "push", "--remote", "shared")
    assert (tmp_path / "snaketune-results/files/md5").is_dir()
    second = cloned(origin, tmp_path / "second")
    restored = second.script("restore.py", "--remote", "shared")
    assert restored.returncode == 0, restored.stderr
    assert "Snakemake has nothing to do" in restored.stdout
