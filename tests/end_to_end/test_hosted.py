"""From data to a row of the summary through a hosted service on loopback, killed on the way: one job, no secret left."""

import csv
from pathlib import Path

import psutil
import pytest
from killing import descendants, kill
from support.experiments import small
from support.services.hosting import SECRET
from support.services.openai_service import Failure, Fault, OpenAiService
from support.workspace import REPOSITORY, Workspace

from snaketune.core.files import read_json, read_jsonl, read_yaml

pytestmark = pytest.mark.long

RUN = "results/runs/gpt-test/test-areas/hosted-openai-compatible"
EXPERIMENT = {
    **read_yaml(REPOSITORY / "config/experiments/hosted.yaml"),
    "scenarios": ["test-areas"],
    "publish": {"confirm": True, "poll_seconds": 0.1},
    "evaluation": {"bootstrap_samples": 500},
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = small(tmp_path, EXPERIMENT)
    made.edit("config/techniques/hosted-openai-compatible.yaml", "gpt-4.1-mini-2025-04-14", "gpt-test")
    return made


def killed_at(workspace: Workspace, openai_service: OpenAiService, route: str, times: int) -> None:
    """Snakemake and all below it die as the service has just done what ``route`` asked, for the nth time."""
    running: list[psutil.Process] = []
    left = [times]

    def watch(seen: str) -> None:
        left[0] -= seen == route
        if left[0] == 0:
            for victim in descendants(running[0]):
                kill(victim)

    openai_service.watch = watch
    log = workspace.path / "killed.log"
    running.append(workspace.started(log, "--cores", "2"))
    code = running[0].wait()
    openai_service.watch = None
    assert code < 0, log.read_text()[-4000:]
    workspace.forked("--unlock")


def holders(root: Path, text: str) -> list[str]:
    """Files below a folder that hold a text, or have it in their name."""
    found = []
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        if text in path.name or text.encode() in path.read_bytes():
            found.append(str(path.relative_to(root)))
    return found


def summary(workspace: Workspace) -> list[dict[str, str]]:
    with (workspace.path / "results/summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_that_is_killed_on_the_way_submits_one_job(workspace: Workspace, openai_service: OpenAiService) -> None:
    for route, times in (
        ("POST /files", 1),
        ("POST /fine_tuning/jobs", 1),
        ("GET /fine_tuning/jobs/ftjob-0000", 2),
        ("POST /chat/completions", 7),
    ):
        killed_at(workspace, openai_service, route, times)
    openai_service.faults += [Fault(".*", 3, Failure(429, "slow down", retry_after_ms="1"))]
    ran = workspace.forked("--cores", "2")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    assert len(openai_service.jobs) == 1
    base, tuned = summary(workspace)
    assert (base["technique"], base["backend"]) == ("base", "hosted")
    assert tuned["technique"] == "hosted-openai-compatible"
    assert (tuned["model"], tuned["scenario"], tuned["metric"]) == ("gpt-test", "test-areas", "accuracy")
    hits = [
        row["statistics"]["accuracy"][0]
        for row in read_jsonl(workspace.path / RUN / "seed-1/evaluation/hosted.predictions.jsonl")
    ]
    assert float(tuned["value"]) == pytest.approx(sum(hits) / len(hits))
    assert int(tuned["n"]) == len(hits) == 32
    assert float(base["value"]) == 0
    assert float(tuned["delta"]) == float(tuned["value"]) > 0
    assert int(tuned["train_tokens"]) == openai_service.jobs["ftjob-0000"]["trained_tokens"]
    empty = ("peak_memory_bytes", "trainable_parameters", "latency_p50_ms", "tokens_per_second", "artifact_bytes")
    assert [tuned[name] for name in empty] == [""] * len(empty)

    again = workspace.forked("--cores", "2")
    assert "Nothing to be done" in again.stdout + again.stderr
    verified = workspace.script("verify.py")
    assert verified.returncode == 0, verified.stderr
    # The copy holds these tests too, which name it.
    assert [path for path in holders(workspace.path, SECRET) if not path.startswith("tests/")] == []

    # What was paid for isn't paid for again, though its record is lost and its script has changed.
    asked = openai_service.count("POST /chat/completions")
    (workspace.path / RUN / "seed-1/job.json").unlink()
    workspace.edit("scripts/submit_hosted.py", "indent=1", "indent=2")
    ran = workspace.forked("--cores", "2")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    assert len(openai_service.jobs) == 1
    assert openai_service.count("POST /chat/completions") == asked


def test_without_leave_nothing_leaves_the_machine(workspace: Workspace, openai_service: OpenAiService) -> None:
    workspace.write(workspace.experiment, {**EXPERIMENT, "publish": {"confirm": False}})
    planned = workspace.forked("--cores", "2", "plan_hosted")
    assert planned.returncode == 0, planned.stderr[-4000:]
    plan = read_json(workspace.path / RUN / "seed-1/plan.json")
    assert plan["sent"]["train"]["rows"] == 120
    assert plan["estimated_cost"] is None
    ran = workspace.forked("--cores", "2")
    assert ran.returncode != 0
    assert "nothing was sent" in ran.stdout + ran.stderr
    assert openai_service.requests == []
