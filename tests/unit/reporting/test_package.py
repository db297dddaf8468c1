"""A package is whole and provable, and its card says what was measured, bad news first."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import packages
from support.measurements import run_script

import package_model
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256, write_json
from snaketune.core.layout import GENAI_FILES
from snaketune.reporting.model_card import front_matter, summary_row
from snaketune.reporting.numbers import number

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = {*GENAI_FILES, "generation_config.json", "README.md", "run.py", "requirements.txt", "SHA256SUMS"}
RECORDS = {"manifest.json", "provenance.json"}


def recipe(**changed: Any) -> dict[str, Any]:
    """The recipe of the run, with other values: of mappings, single keys."""
    made = copy.deepcopy(packages.RECIPE)
    for key, value in changed.items():
        made[key] = {**made[key], **value} if isinstance(value, dict) else value
    return made


def package(results: Path, lock: Path = ROOT / "envs/train/requirements.txt", **changed: Any) -> Path:
    told = recipe(**changed)
    model, scenario, technique, seed = told["cell"]
    out = results / f"runs/{model}/{scenario}/{technique}/seed-{seed}/package"
    shared = ("--recipe", json.dumps(told), "--results", results, "--lock", lock)
    files = ("--template", ROOT / "report/model_card.md.j2", "--program", ROOT / "report/run.py")
    run_script(package_model, *shared, *files, "--output-directory", out)
    return out


def card(results: Path, **changed: Any) -> str:
    return (package(results, **changed) / "README.md").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("finished") / "results"
    packages.save_run(results)
    return results


@pytest.fixture
def results(tmp_path: Path, finished: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "results"))


def test_a_package_is_whole_proven_and_the_same_at_every_making(results: Path) -> None:
    out = package(results)
    assert {path.name for path in out.iterdir()} == SHIPPED | RECORDS
    named = read_json(out / "manifest.json")
    assert set(named["files"]) == SHIPPED
    assert {path.removeprefix(f"{results}/") for path in named["inputs"]} >= {
        "summary.csv",
        f"{packages.RUN}/onnx/genai-int4/manifest.json",
        f"{packages.RUN}/manifest.json",
    }
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == len(SHIPPED) - 1
    before = {name: (out / name).read_bytes() for name in {*SHIPPED, "manifest.json"}}
    package(results)
    assert before == {name: (out / name).read_bytes() for name in before}
    # Who edits a package leaves the run as it was.
    (out / "model.onnx").write_bytes(b"other")
    assert (results / packages.RUN / "onnx/genai-int4/model.onnx").read_bytes() == before["model.onnx"]


def test_requirements_are_the_locked_versions(results: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("numpy==2.0\nonnxruntime-genai==1.2.3 ; python_version > '3'\nonnxruntime==4.5.6\n")
    out = package(results, lock)
    assert (out / "requirements.txt").read_text() == "onnxruntime-genai==1.2.3\nonnxruntime==4.5.6\n"
    assert "onnxruntime-genai==1.2.3" in (out / "README.md").read_text()


def test_the_cards_figures_are_those_of_the_measurements(results: Path) -> None:
    text = card(results)
    for told in (
        "| genai-int4 (this package) | 0.625 | 0.500 to 0.750 | 0.250 | +0.375 | +0.210 to +0.530 | 80 |",
        "| onnx-fp32-genai-int4 | 512 | 0.984 | 0.00042 | 0.310 | +0.031 | -0.013 | 1.000 |",
        "**Better than the base model** on 80 test rows: accuracy 0.625 compared with 0.250 (higher is better)",
        "98,304 of 2,557,632 parameters were trained on 5,000 tokens in 12.5 s, with a peak of 700.0 MiB",
        "| adapter.options.r | `8` |",
        "| learning_rate | `0.0002` |",
        "200 train, 40 validation, 80 test were kept",
        "Data gate: marked (over budget: leaks)",
        "duplicate a training row: 5 of 120",
        "Route a ticket: which team?",
        "at most 2,048 tokens",
        "321.5 tokens/s",
        "Only one seed was trained",
        f"`{sha256(results / packages.RUN / 'onnx/genai-int4/model.onnx')}`",
    ):
        assert told in text
    assert "c0de" not in text
    assert "onnx-fp32-int8" not in text
    assert "over its parity budget" not in text


LOST = {"delta": -0.2, "delta_ci_low": -0.3, "delta_ci_high": -0.1}


@pytest.mark.parametrize(
    ("row", "comparison", "told"),
    [
        ({"delta": 0.01, "delta_ci_low": -0.1, "delta_ci_high": 0.12}, {}, "Not shown better than the base model"),
        ({"delta_ci_low": 0.0}, {}, "Not shown better than the base model"),
        ({}, {"better": False}, "simultaneous for all comparisons"),
        ({"n": 19}, {}, "> **Not decided whether better than the base model"),
        (LOST, {}, "> **Worse than the base model"),
        ({}, {"higher_is_better": False}, "> **Worse than the base model"),
        (LOST, {"higher_is_better": False}, "(lower is better)"),
    ],
)
def test_what_isnt_shown_better_is_said_at_the_top(
    results: Path, row: dict[str, Any], comparison: dict[str, Any], told: str
) -> None:
    packages.save_summary(results, **row)
    packages.save_comparison(results, **comparison)
    top, heading, _ = card(results).partition("\n\n## Run it\n\n")
    assert heading
    assert told in top
    assert ("**Better than" in top) == (told == "(lower is better)")


def test_a_hop_over_budget_is_told_at_the_top_if_its_on_the_way_to_the_package(results: Path) -> None:
    packages.save_parity(results, "onnx-fp32-genai-int4: kl_divergence is 0.4, expected at most 0.2")
    top = card(results).split("## Run it")[0]
    assert "> - onnx-fp32-genai-int4: kl_divergence is 0.4, expected at most 0.2" in top
    assert "`gate: warn`" in top
    packages.save_parity(results, "onnx-fp32-int8: kl_divergence is 0.4, expected at most 0.2")
    text = card(results)
    assert "kl_divergence is 0.4" not in text
    assert "Every step is within its budget" in text


def test_the_untuned_model_has_a_card_without_training(results: Path) -> None:
    run = results / packages.RUN
    base = run.parents[1] / "base/seed-0"
    base.parent.mkdir()
    (results / "models/tiny").mkdir(parents=True)
    run.rename(base)
    (base / "onnx").rename(results / "models/tiny/onnx")
    (base / "merged").rename(results / "models/tiny/base")
    for name in ("manifest.json", "provenance.json", "resources.json"):
        (base / name).unlink()
    summary = results / "summary.csv"
    summary.write_text(summary.read_text().replace("lora,1,", "base,0,").replace("0.25,0.375,0.21,0.53", ",,,"))
    text = card(results, cell=["tiny", "tickets", "base", 0], technique=None)
    assert "**Not fine-tuned**" in text
    assert "## Training" not in text
    assert "Data: CC BY-SA 4.0" not in text
    assert "| torch | 0.625 | 0.500 to 0.750 | – | – | – | 80 |" in text


def test_the_front_matter_is_the_hubs() -> None:
    scenario = {"licence": "MIT", "hub": "owner/tickets", "revision": "b" * 40}
    found = yaml.safe_load(front_matter(recipe(scenario=scenario), packages.ROW))
    [measured] = found.pop("model-index")[0]["results"]
    assert measured["dataset"] == {"name": "tickets", "type": "owner/tickets", "split": "test", "revision": "b" * 40}
    assert measured["metrics"] == [{"type": "accuracy", "value": 0.625}]
    assert found == {
        "license": "mit",
        "base_model": "owner/small",
        "base_model_relation": "finetune",
        "datasets": ["owner/tickets"],
        "language": ["en"],
        "library_name": "onnxruntime-genai",
        "pipeline_tag": "text-generation",
        "tags": [
            *("onnx", "onnxruntime-genai", "snaketune", "conversational", "phi3", "genai-int4"),
            *("classification", "lora"),
        ],
    }


def test_a_licence_that_isnt_one_of_the_hubs_or_not_that_of_all_parts_is_other(results: Path) -> None:
    text = card(results)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"
    assert "Data: CC BY-SA 4.0" in text
    assert "`owner/small`" in text
    local = recipe(model={"licence": "MIT; and more", "hub": None}, scenario={"licence": "MIT; and more"})
    found = yaml.safe_load(front_matter(local, packages.ROW))
    assert found["license"] == "other"
    assert "base_model" not in found


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("classification", "always choosing the most common label would have an accuracy of 0.550"),
        ("language-modeling", "It was fine-tuned on plain text, not on chats"),
        ("translation", "Which team?\n{text}"),
    ],
)
def test_what_the_figures_dont_say_of_a_task_is_said(results: Path, task: str, told: str) -> None:
    assert told in card(results, scenario={"task": task})


def test_several_seeds_have_their_mean(results: Path) -> None:
    packages.save_comparison(results, seeds=[1, 2])
    text = card(results)
    assert "seed 1 of 1, 2. With torch, the mean over seeds is 0.600 [0.500, 0.700]" in text
    assert "Only one seed was trained" not in text


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (f"{packages.RUN}/parity.json", "can't be packaged without"),
        (f"{packages.RUN}/resources.json", "can't be packaged without"),
        ("data/tickets/card.json", "card.json is missing"),
        (f"{packages.RUN}/onnx/genai-int4/tokenizer.json", "tokenizer.json is missing"),
        (f"{packages.RUN}/merged/generation_config.json", "generation_config.json is missing"),
    ],
)
def test_a_missing_piece_is_one_message_and_no_package(results: Path, missing: str, words: str) -> None:
    (results / missing).unlink()
    with pytest.raises(UserError, match=words) as told:
        package(results)
    assert missing in str(told.value)
    assert not (results / packages.RUN / "package").exists()


def test_half_written_weights_are_not_packaged(results: Path) -> None:
    weights = results / packages.RUN / "onnx/genai-int4/model.onnx_data"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.onnx_data has changed since it was made"):
        package(results)
    assert not (results / packages.RUN / "package").exists()


def test_figures_of_another_run_or_an_older_gate_are_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary\.csv: no row of tiny / tickets / lora / 1 with genai-int8"):
        summary_row(results / "summary.csv", packages.RECIPE, "genai-int8")  # type: ignore[arg-type]
    parity = results / packages.RUN / "parity.json"
    found = read_json(parity)
    del found["hops"]["onnx-fp32-genai-int4"]
    write_json(parity, found)
    with pytest.raises(UserError, match=r"parity\.json: no figures of the conversion step onnx-fp32-genai-int4"):
        package(results)
    packages.save_parity(results)
    (tmp_path / "lock.txt").write_text("onnxruntime==1\n")
    with pytest.raises(UserError, match=r"lock\.txt: no line onnxruntime-genai==VERSION"):
        package(results, tmp_path / "lock.txt")
    assert not list(results.rglob("README.md"))


@pytest.mark.parametrize(
    ("value", "digits", "sign", "told"),
    [
        (0.5, 3, False, "0.500"),
        (1234.5, 1, False, "1,234.5"),
        (0.0, 3, True, "+0.000"),
        (-0.0125, 3, True, "-0.013"),
        (1.43e-6, 3, False, "1.43e-06"),
        (None, 3, False, "–"),
    ],
)
def test_small_numbers_dont_become_nothing(value: float | None, digits: int, sign: bool, told: str) -> None:
    assert number(value, digits, sign) == told
