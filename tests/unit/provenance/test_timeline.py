"""The jobs of the last run, in lanes, from Snakemake's records."""

import base64
import json
from pathlib import Path

import pytest

from snaketune.provenance.timeline import jobs_of, last_run, made_from


def test_jobs_of_the_last_run_are_in_lanes_and_earlier_ones_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    times = {"data": (0, 50), "train/a": (1000, 1030), "train/b": (1005, 1100), "evaluate/a": (1030, 1040)}
    records = [(f"results/{job}.json", "rule", job, *spent) for job, spent in times.items()]
    records.append(("results/report.html", "write_report", "write_report", 900, 901))
    for path, rule, job, start, end in records:
        record = Path(".snakemake/metadata", base64.urlsafe_b64encode(path.encode()).decode())
        record.parent.mkdir(parents=True, exist_ok=True)
        content = {"rule": rule, "log": [f"logs/{job}.log"], "starttime": start, "endtime": end}
        record.write_text(json.dumps(content))
    paths = [Path(path) for path, *_ in records]
    jobs, earlier = last_run(jobs_of([*paths, Path("results/unknown.json")]))
    told = [(one["job"], one["start"], one["end"], one["lane"]) for one in jobs]
    assert told == [("train/a", 0, 30, 0), ("train/b", 5, 100, 1), ("evaluate/a", 30, 40, 0)]
    assert [one["job"] for one in earlier] == ["data"]


def test_only_what_the_results_were_made_from_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = {"summary": ["train/b"], "train/b": ["data/b", "unrecorded"], "data/b": [], "train/a": ["data/b"]}
    for path, made_of in inputs.items():
        record = Path(".snakemake/metadata", base64.urlsafe_b64encode(path.encode()).decode())
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"input": made_of}))
    assert made_from([Path("summary")]) == {Path(name) for name in ("summary", "train/b", "data/b", "unrecorded")}
