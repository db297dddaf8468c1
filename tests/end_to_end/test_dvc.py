"""DVC records a run, an S3 server keeps it, and a clone gets it back, proven."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from support.experiments import RUNS
from support.workspace import Workspace, refusal_of, share_environments

from snaketune.core.files import read_yaml

pytestmark = pytest.mark.long

BUCKET = "results"
RUN = f"{RUNS}/lora/seed-1"
SETTINGS = {
    **{f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    # A process of its own looks for updates and sends statistics after each command of DVC.
    "DVC_NO_ANALYTICS": "1",
    "CI": "1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Commands that DVC runs find the programs of this environment, as after `activate`.
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def call(directory: Path, *command: str) -> str:
    """What a command that succeeds prints on both streams."""
    ran = subprocess.run(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout[-6000:]}"
    return ran.stdout


def dvc(directory: Path, *arguments: str) -> str:
    return call(directory, sys.executable, "-m", "dvc", *arguments)


def shown(directory: Path, *arguments: str) -> Any:
    """The JSON that a command of DVC prints."""
    command = [sys.executable, "-m", "dvc", *arguments, "--json"]
    return json.loads(subprocess.check_output(command, cwd=directory, text=True))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in SETTINGS.items():
            environment.setenv(name, value)
        server.start()
        address = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
        yield address
        server.stop()


@pytest.fixture(scope="module")
def origin(finished: Workspace, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository whose finished experiment was recorded by `dvc repro` and pushed to S3."""
    copy = finished.copied(tmp_path_factory.mktemp("dvc") / "origin")
    copy.write("config/config.yaml", copy.config())
    path = copy.path
    dvc(path, "remote", "add", "--default", "s3", f"s3://{BUCKET}/store")
    dvc(path, "remote", "modify", "s3", "endpointurl", s3)
    dvc(path, "remote", "modify", "s3", "verify", "true")
    call(path, "git", "init", "--initial-branch=main")
    call(path, "git", "add", ".")
    call(path, "git", "commit", "--message=code")
    assert "Nothing to be done" in dvc(path, "repro")
    call(path, "git", "add", "dvc.lock")
    call(path, "git", "commit", "--message=run")
    dvc(path, "push")
    return path


def cloned(origin: Path, path: Path) -> Workspace:
    call(path.parent, "git", "clone", "--quiet", str(origin), str(path))
    share_environments(path)
    return Workspace(path, "config/config.yaml")


@pytest.fixture(scope="module")
def clone(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A fresh clone, restored from S3."""
    workspace = cloned(origin, tmp_path_factory.mktemp("clone") / "clone")
    assert "Snakemake has nothing to do" in workspace.told("restore.py")
    return workspace


def test_a_restored_clone_has_nothing_to_do_and_every_hash_holds(origin: Path, clone: Workspace) -> None:
    assert "Nothing to be done" in clone.run("--dry-run")
    clone.told("verify.py")
    name = f"{RUN}/adapter/adapter_model.safetensors"
    assert (clone.path / name).read_bytes() == (origin / name).read_bytes()
    assert "changed outs" not in dvc(clone.path, "status")


def page_of(clone: Workspace, *arguments: str) -> str:
    """The page of plots that a command of DVC writes, without spaces."""
    [written] = re.findall(r"file://(\S+)", dvc(clone.path, "plots", *arguments, "--out", "plots"))
    return Path(written).read_text().replace(" ", "")


def test_metrics_params_and_plots_are_read_by_dvc(clone: Workspace) -> None:
    metrics = shown(clone.path, "metrics", "show")[""]["data"]["results/metrics.json"]
    found = metrics["data"]["test-phi3"]["test-areas"]["lora"]["seed-1"]
    assert found.keys() == {"torch", "onnx-fp32", "onnx-int8", "onnx-int4"}
    page = page_of(clone, "show")
    for part in ("test-phi3/test-areas/zero3/seed-1", "Qualityagainstpeakmemory", "Traininglosspercompletiontoken"):
        assert part in page
    assert page.count('"backend":"torch"') >= 8


def test_an_experiment_runs_only_what_its_change_touches_and_is_compared(clone: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in (clone.path / "results").rglob("*") if path.is_file()}
    name = "config/techniques/lora.yaml:adapter.options.r=4"
    dvc(clone.path, "exp", "run", "--name", "rank-4", "--set-param", name)
    changed = {p.relative_to(clone.path) for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert {path.parts[4] for path in changed if path.parts[1] == "runs"} == {"lora"}
    assert {path.parts[1] for path in changed} == {
        "runs",
        *("summary.csv", "comparisons.json", "metrics.json", "technique_table.json", "report.html", "plots"),
        *("params.yaml", "manifest.json", "provenance.json"),
    }
    changed_rank = shown(clone.path, "params", "diff")["results/params.yaml"]["techniques.lora.adapter.options.r"]
    assert (changed_rank["old"], changed_rank["new"]) == (8, 4)
    assert "results/metrics.json" in shown(clone.path, "metrics", "diff", "--all")
    assert '"rev":"HEAD"' in page_of(clone, "diff", "HEAD")
    assert "adapter.options.r: 8 → 4" in clone.told("diff_runs.py", f"HEAD:{RUN}", RUN)
    clone.told("diff_runs.py", f"HEAD:{RUNS}/base/seed-0", f"{RUNS}/base/seed-0")
    clone.told("verify.py")
    refused = refusal_of(clone.script("restore.py"))
    assert "uncommitted changes (such as config/techniques/lora.yaml)" in refused
    call(clone.path, "git", "checkout", "--quiet", ".")
    assert "differ from dvc.lock" in refusal_of(clone.script("restore.py"))
    clone.told("restore.py", "--force")
    assert clone.pending() == set()
    clone.told("verify.py")


def test_what_was_added_after_a_restore_is_all_that_runs(clone: Workspace) -> None:
    clone.edit("config/config.yaml", "seeds:\n- 1", "seeds:\n- 1\n- 2")
    jobs = {job for job in clone.pending() if job.startswith(("train", "pretrain", "prepare", "tokenize"))}
    assert jobs
    assert all(job.endswith("seed 2") for job in jobs)
    call(clone.path, "git", "checkout", "--quiet", ".")


def stored(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def object_of(clone: Workspace, name: str) -> str:
    """Where a cache has what dvc.lock holds for a file of results/."""
    outs = read_yaml(clone.path / "dvc.lock")["stages"]["experiment"]["outs"]
    [md5] = [out["md5"] for out in outs if out["path"] == "results"]
    listing = json.loads((clone.path / ".dvc/cache" / stored(md5)).read_text())
    return next(stored(entry["md5"]) for entry in listing if entry["relpath"] == name.removeprefix("results/"))


def test_a_corrupt_cache_object_is_refused_by_name_and_nothing_is_changed(clone: Workspace) -> None:
    name = f"{RUN}/adapter/adapter_model.safetensors"
    cached = clone.path / ".dvc/cache" / object_of(clone, name)
    good = cached.read_bytes()
    cached.chmod(0o644)
    cached.write_bytes(good[:-1] + b"x")
    # DVC trusts what is write-protected, as it leaves each object itself.
    cached.chmod(0o444)
    (clone.path / name).unlink()
    refused = refusal_of(clone.script("restore.py"))
    assert name in refused
    assert "is corrupt" in refused
    assert not (clone.path / name).exists()
    cached.unlink()
    clone.told("restore.py")
    assert (clone.path / name).read_bytes() == good


def test_a_corrupt_or_missing_object_of_the_remote_is_refused(
    clone: Workspace, origin: Path, s3: str, tmp_path: Path
) -> None:
    client = boto3.client("s3", endpoint_url=s3)
    place = {"Bucket": BUCKET, "Key": f"store/{object_of(clone, f'{RUN}/train.jsonl')}"}
    good = client.get_object(**place)["Body"].read()
    for name, spoil in (
        ("corrupt", lambda: client.put_object(**place, Body=b"garbage")),
        ("missing", lambda: client.delete_object(**place)),
    ):
        spoil()
        work = cloned(origin, tmp_path / name)
        assert refusal_of(work.script("restore.py")).startswith("error: ")
        assert not (work.path / "results").exists()
    client.put_object(**place, Body=good)


def test_a_remote_that_is_not_there_is_one_clear_message(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    work = cloned(origin, tmp_path / "clone")
    dvc(work.path, "remote", "modify", "--local", "s3", "endpointurl", "http://127.0.0.1:9")
    refused = refusal_of(work.script("restore.py"))
    assert "`dvc fetch` failed" in refused
    assert "dvc remote modify --local" in refused


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
    first.told("restore.py")
    dvc(first.path, "push", "--remote", "shared")
    assert (tmp_path / "snaketune-results/files/md5").is_dir()
    second = cloned(origin, tmp_path / "second")
    assert "Snakemake has nothing to do" in second.told("restore.py", "--remote", "shared")
