"""Hosted techniques before anything is sent: their files, their rows, their place in the summary."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.services.hosting import SECRET, rows, write_rows

from snaketune.config.validation import validated
from snaketune.core import manifest
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, read_yaml, write_json, write_jsonl
from snaketune.platforms.hosted import jobs
from snaketune.platforms.hosted import service as hosted_service
from snaketune.platforms.hosted.job_params import HostedParams
from snaketune.platforms.hosted.technique import HostedTechnique
from snaketune.platforms.registry import read_matrix
from snaketune.reporting.results import Results
from snaketune.reporting.summary import hosted_rows

ROOT = Path(__file__).parents[3]
CONFIG = read_yaml(ROOT / "config/config.yaml") | read_yaml(ROOT / "config/experiments/hosted.yaml")
AZURE = read_yaml(ROOT / "config/techniques/hosted-azure-ml.yaml")
OPENAI = read_yaml(ROOT / "config/techniques/hosted-openai-compatible.yaml")
LIMITS = {"least_rows": 10, "most_rows": None, "most_bytes": 10**6, "most_row_characters": None}


def service(technique: Any, **changes: Any) -> Any:
    return {**technique, "service": {**technique["service"], **changes}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (service(AZURE, model="Phi-9"), ["model Phi-9 isn't among those offered", "Phi-4-mini-instruct"]),
        (service(AZURE, region="westeurope"), ["region westeurope doesn't offer Phi-4-mini-instruct", "eastus2"]),
        (service(AZURE, modle="x"), ["modle: unknown key"]),
        (service(OPENAI, client="azure"), ["client", "'azure-openai'"]),
        (service(OPENAI, type="vertex"), ["'vertex'", "'azure-ml'"]),
        ({**OPENAI, "hyperparameters": {"n_epochs": 3}}, ["epochs are set by training.epochs of the experiment"]),
        ({**OPENAI, "hyperparameters": {"lr": 3}}, ["hyperparameters.lr: unknown"]),
        ({**OPENAI, "price": {"per_million_training_tokens": 1}}, ["price.currency: missing"]),
        ({**OPENAI, "api_key": SECRET}, ["api_key: unknown key"]),
    ],
)
def test_a_fault_of_a_hosted_technique_is_named(content: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        validated(HostedTechnique, content, "the file")
    assert [word for word in words if word not in str(raised.value)] == [], raised.value


def test_what_the_list_of_offers_lacks_is_sent_if_asked() -> None:
    assert validated(HostedTechnique, service(AZURE, model="Phi-9", unlisted=True), "x").service.model == "Phi-9"


def test_a_retired_model_warns(capsys: pytest.CaptureFixture[str]) -> None:
    matrix = read_matrix({**CONFIG, "techniques": ["hosted-azure-ml"]}, ROOT)
    matrix.hosted["hosted-azure-ml"] = validated(HostedTechnique, service(AZURE, model="Phi-3-mini-4k-instruct"), "x")
    capsys.readouterr()
    jobs.check(matrix)
    assert "Phi-3-mini-4k-instruct is retired" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ["tiny-phi3"]}, "write models: []"),
        ({"models": [], "techniques": ["lora"]}, "lora is trained locally and needs a model"),
        ({"scenarios": ["domain"]}, "domain is task: language-modeling"),
    ],
)
def test_an_experiment_that_cannot_be_is_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("[", r"\[").replace("]", r"\]")):
        read_matrix({**CONFIG, **changes}, ROOT)


def test_a_recipe_has_nothing_of_where_it_is_or_what_it_costs() -> None:
    matrix = read_matrix({**CONFIG, "techniques": ["hosted-openai-compatible", "hosted-azure-ml"]}, ROOT)
    for name in matrix.hosted:
        recipe = json.loads(HostedParams(matrix, ROOT).submission(SimpleNamespace(technique=name, seed=1)))
        assert recipe["epochs"] == CONFIG["training"]["epochs"]
        assert not {"price", "limits", "description", "characters_per_token"} & recipe.keys()
        assert not {"endpoint", "deployment", "untuned"} & recipe["service"].keys()


def test_a_key_follows_from_what_is_asked_and_from_the_rows(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows", {"train": rows(2), "validation": rows(1)})
    recipe = {"service": {}, "hyperparameters": {}, "epochs": 1, "seed": 1, "attempt": 1, "code": "a"}
    key = hosted_service.key_of(recipe, data)
    assert len(key) == 18
    assert hosted_service.key_of({**recipe, "code": "b"}, data) == key
    assert hosted_service.key_of({**recipe, "seed": 2}, data) != key
    write_jsonl(data / "train.jsonl", rows(3))
    assert hosted_service.key_of(recipe, data) != key


def test_what_a_service_echoes_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    words = hosted_service.redacted(f"wrong key {SECRET}\n in Bearer abc.def")
    assert words == "wrong key [OPENAI_API_KEY] in Bearer [token]"
    event = {"level": "info", "message": f"Bearer {SECRET}", "data": [{"key": SECRET}, None, 1]}
    told = {"level": "info", "message": "Bearer [token]", "data": [{"key": "[OPENAI_API_KEY]"}, None, 1]}
    assert hosted_service.redacted_json(event) == told


def convert(tmp_path: Path, splits: dict[str, Any], limits: dict[str, Any] | None = None) -> Any:
    write_rows(tmp_path / "data", splits)
    command = [sys.executable, ROOT / "scripts/convert_hosted.py", "--data-directory", "data"]
    command += ["--recipe", json.dumps({"limits": {**LIMITS, **(limits or {})}}), "--output-directory", "rows"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_rows_become_chats_and_nothing_else_of_them_is_sent(tmp_path: Path) -> None:
    assert convert(tmp_path, {"train": rows(12), "validation": rows(2)}).returncode == 0
    assert read_jsonl(tmp_path / "rows/train.jsonl") == [{"messages": row["messages"]} for row in rows(12)]
    assert set(read_json(tmp_path / "rows/manifest.json")["files"]) == {"train.jsonl", "validation.jsonl"}


def test_a_service_is_told_which_answer_is_not_to_be_learned(tmp_path: Path) -> None:
    chat = [USER, {**ANSWER, "weight": 0}, USER, ANSWER]
    assert convert(tmp_path, with_messages(*chat)).returncode == 0
    assert {"messages": chat} in read_jsonl(tmp_path / "rows/train.jsonl")


def with_messages(*messages: Any) -> dict[str, Any]:
    good = rows(12)
    return {"train": [*good[:3], {"id": "bad", "messages": list(messages)}, *good[3:]], "validation": rows(2)}


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("splits", "limits", "words"),
    [
        (
            with_messages(USER, {"role": "assistant", "content": " "}),
            {},
            "line 4: messages[1].content: expected a non-empty",
        ),
        (with_messages(USER), {}, "expected the assistant's turn last"),
        (
            with_messages(USER, {**ANSWER, "reasoning_content": "c"}),
            {},
            "line 4: messages: services are sent texts only",
        ),
        (
            {"train": [{"id": "t", "text": "plain"}] * 12, "validation": rows(2)},
            {},
            "line 1: messages: expected a list of messages",
        ),
        ({"train": rows(9), "validation": rows(2)}, {}, "9 rows, but the service takes at least 10"),
        ({"train": rows(12), "validation": rows(2)}, {"most_rows": 11}, "and at most 11"),
        ({"train": rows(12), "validation": rows(2)}, {"most_bytes": 500}, "but at most 500"),
        ({"train": rows(12), "validation": rows(2)}, {"most_row_characters": 9}, "expected at most 9"),
    ],
)
def test_what_a_service_would_reject_is_told_before(
    splits: dict[str, Any], limits: dict[str, Any], words: str, tmp_path: Path
) -> None:
    ran = convert(tmp_path, splits, limits)
    assert ran.returncode == 1
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list((tmp_path / "rows").glob("*.json*"))


def save_run(run: Path, hits: list[int] | None, metric: str = "accuracy") -> None:
    if hits is not None:
        write_jsonl(run / "evaluation/hosted.predictions.jsonl", [{"statistics": {metric: [hit, 1]}} for hit in hits])
        write_json(run / "evaluation/hosted.json", {"metrics": {metric: sum(hits) / len(hits)}, "n": len(hits)})
    write_json(run / "resources.json", {"train_tokens": 77, "seconds": None})


def found_rows(root: Path, asks: bool, asks_untuned: bool) -> list[dict[str, Any]]:
    recipe = {
        "scenarios": {"s": {"primary_metric": "accuracy", "higher_is_better": True}},
        "bootstrap_samples": 200,
        "confidence": 0.95,
        "cells": [],
    }
    one = {"cell": ["m", "s", "t", 1], "asks": asks, "asks_untuned": asks_untuned}
    return hosted_rows(Results(root, recipe), [one])


def test_a_run_has_a_row_beside_its_untuned_model(tmp_path: Path) -> None:
    save_run(tmp_path / "runs/m/s/t/seed-1", [1] * 9 + [0])
    save_run(tmp_path / "runs/m/s/t/untuned", [0] * 10)
    base, tuned = found_rows(tmp_path, True, True)
    assert (base["technique"], base["seed"], base["value"], base["backend"]) == ("base", 0, 0.0, "hosted")
    assert (tuned["value"], tuned["base_value"], tuned["delta"], tuned["n"]) == (0.9, 0.0, 0.9, 10)
    assert tuned["delta_ci_low"] > 0.5
    assert (tuned["train_tokens"], tuned["train_seconds"]) == (77, None)
    assert not {"peak_memory_bytes", "trainable_parameters", "latency_p50_ms"} & tuned.keys()


@pytest.mark.parametrize("metric", [None, "rouge_l"])
def test_what_is_not_measured_is_empty_and_no_zero(metric: str | None, tmp_path: Path) -> None:
    save_run(tmp_path / "runs/m/s/t/seed-1", [1, 0] if metric else None, metric or "")
    [row] = found_rows(tmp_path, metric is not None, False)
    assert row["value"] is None
    assert "delta" not in row
    assert row["train_tokens"] == 77


def test_answers_are_scored_by_the_metrics_of_every_backend(tmp_path: Path) -> None:
    answers = [{"id": row["id"], "prediction": row["reference"], "well_formed": True} for row in rows(4)]
    answers[0]["prediction"] = "algebra"
    answers[1]["prediction"] = "no label"
    data = write_rows(tmp_path / "data", {"train": rows(2), "test": rows(4)})
    write_json(data / "card.json", {"labels": ["algebra", "graphs"], "answers": ["algebra", "graphs"]})
    manifest.record(data, {}, [], [data / name for name in ("train.jsonl", "test.jsonl", "card.json")])
    write_jsonl(tmp_path / "answers.jsonl", answers)
    command = [sys.executable, ROOT / "scripts/score_hosted.py", "--recipe", '{"task": "classification"}']
    command += ["--data-directory", "data", "--answers", "answers.jsonl", "--output", "hosted.json"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = read_json(tmp_path / "hosted.json")
    assert found["metrics"]["accuracy"] == 0.5
    assert (found["n"], found["latency_p50_ms"]) == (4, None)
    assert read_jsonl(tmp_path / "hosted.predictions.jsonl")[2]["statistics"]["accuracy"] == [1.0, 1]
