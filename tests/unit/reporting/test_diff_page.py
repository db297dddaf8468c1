"""Two runs on one page: what differs, the metrics with intervals, the curves and the answers."""

import sys
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from support.measurements import METRICS, save_experiment
from test_page_in_browser import CHROMIUM

import diff_runs
from snaketune.core.files import read_json, write_json

RUNS = "results/runs/tiny/classification"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments, the second of which has a better LoRA."""
    project = tmp_path_factory.mktemp("project")
    for name, skill in (("results", 0.5), ("other/results", 0.8)):
        results = project / name
        save_experiment(results, {"base": 0.3, "lora": skill, "full": 0.6}, ["classification"], [1])
        for file in results.rglob("manifest.json"):
            write_json(file, read_json(file) | {"recipe": {"adapter": {"r": 10 * skill}}})
            write_json(file.with_name("provenance.json"), {"commit": "0" * 40, "python": "3.11"})
        for file in results.glob("runs/*/*/*/*/evaluation/*.json"):
            write_json(file, read_json(file) | {"metrics": {"accuracy": skill}})
        params = {
            "experiment": {"evaluation": {"bootstrap_samples": 200, "confidence": 0.95}},
            "scenarios": {"classification": {"primary_metric": METRICS["classification"]}},
        }
        (results / "params.yaml").write_text(yaml.safe_dump(params))
    return project


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *names: str) -> str:
    monkeypatch.setattr(sys, "argv", ["diff_runs.py", *names])
    diff_runs.main()
    return capsys.readouterr().out


def test_two_runs_are_told_and_shown(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    text = told(monkeypatch, capsys, f"{RUNS}/lora/seed-1", f"other/{RUNS}/lora/seed-1")
    for part in ("adapter.r: 5 → 8", "inputs: equal", "n = 120: B is better", "work/diff.html"):
        assert part in text
    assert "it isn't about their techniques.\n" in text


def test_every_run_that_two_experiments_share_has_a_part(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    text = told(monkeypatch, capsys, "results", "other/results", "--page", "all.html")
    assert [line for line in text.splitlines() if line.startswith("tiny/")] == [
        f"tiny/classification/{run}" for run in ("base/seed-0", "full/seed-1", "lora/seed-1")
    ]
    page = (project / "all.html").read_text()
    assert page.count('<h2 id="part-') == 3
    for said in (text, page):
        assert "Each interval holds on its own, not all 3 at once." in said


@pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")
def test_the_page_asks_no_host_and_lists_what_the_second_fixed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    told(monkeypatch, capsys, f"{RUNS}/lora/seed-1", f"other/{RUNS}/lora/seed-1")
    asked: list[str] = []
    with sync_playwright() as program, program.chromium.launch(executable_path=CHROMIUM) as browser:
        shown = browser.new_page()
        shown.on("pageerror", lambda error: asked.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((project / "work/diff.html").as_uri())
        shown.wait_for_selector("html[data-ready]", state="attached")
        assert asked == [(project / "work/diff.html").as_uri()]
        assert shown.locator(".plot svg").count() == 1
        shown.locator(".kind").select_option("fixed")
        assert "fixed" in shown.locator(".answers tbody tr").first.inner_text()
        found = Axe().run(shown).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
