"""A published adapter or model is what a hub holds: transformers and peft load it, and it answers as the run's did."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from support import packages
from support.random_models import FAMILIES, merged
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import publish_model
from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.layout import ADAPTER_FILES, MODEL_FILES, TOKENIZER_FILES
from snaketune.core.manifest import record

COMMIT = "a" * 40
ASKED = [{"role": "user", "content": "Which team?\nmy screen is dark"}]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of LoRA, adapter and merged, whose figures are made up."""
    project = tmp_path_factory.mktemp("project")
    results = project / "results"
    run = packages.save_run(results)
    base = merged(results / "models/tiny/base", **FAMILIES["llama"])
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM")
    )
    tuned.save_pretrained(run / "adapter")
    start = {"start_from": "/scratch/first", "start_digests": {f"/scratch/first/{ADAPTER_FILES[0]}": "c" * 64}}
    record(run, {"adapter": {"type": "lora"}, **start}, [], [run / "adapter" / name for name in ADAPTER_FILES])
    tuned.merge_and_unload().save_pretrained(run / "merged")
    for name in MODEL_FILES[2:]:
        (run / "merged" / name).write_bytes((base / name).read_bytes())
    record(run / "merged", {}, [], [run / "merged" / name for name in MODEL_FILES])
    described = {
        key: packages.RECIPE["model"][key] for key in ("description", "licence", "hub", "revision", "model_type")
    }
    scenario = packages.RECIPE["scenario"]
    source = {"builtin": None, "options": {}, "hub": None, "revision": None}
    known = {
        "experiment": {"evaluation": {"confidence": 0.95}},
        "models": {"tiny": described},
        "scenarios": {"tickets": {**scenario, "source": source}},
        "techniques": {"lora": {"description": "Low-rank adapters.", "base_precision": "fp32"}},
    }
    (results / "params.yaml").write_text(yaml.safe_dump(known))
    return project


@pytest.fixture
def publish(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(project)

    def call(to: Path, *options: str) -> Path:
        monkeypatch.setattr(sys, "argv", ["publish_model.py", f"results/{packages.RUN}", str(to), *options])
        publish_model.main()
        return to

    return call


def answer(model: PreTrainedModel, folder: Path) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return model.generate(**inputs, max_new_tokens=24, do_sample=False)[0].tolist()  # type: ignore[no-any-return]


@torch.no_grad()
def test_adapter_and_model_answer_alike_and_not_as_the_base(project: Path, publish: Any, tmp_path: Path) -> None:
    adapter, whole = publish(tmp_path / "adapter"), publish(tmp_path / "whole", "--merged")
    assert {path.name for path in adapter.iterdir()} == {*ADAPTER_FILES, *TOKENIZER_FILES, "README.md"}
    assert {path.name for path in whole.iterdir()} == {*MODEL_FILES, "README.md"}
    settings = read_json(adapter / "adapter_config.json")
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("owner/small", COMMIT)
    base = AutoModelForCausalLM.from_pretrained(project / "results/models/tiny/base")
    untuned = answer(base, adapter)
    of_adapter = answer(PeftModel.from_pretrained(base, adapter), adapter)
    assert of_adapter == answer(AutoModelForCausalLM.from_pretrained(whole), whole) != untuned
    texts = [path.read_text() for folder in (adapter, whole) for path in folder.glob("*.[jm]*")]
    assert not [text for text in texts if str(project) in text or "results/models" in text]


def test_the_card_has_what_the_hub_reads(publish: Any, tmp_path: Path) -> None:
    card = ModelCard.load(publish(tmp_path / "adapter") / "README.md")
    assert (card.data.base_model, card.data.library_name, card.data.license) == ("owner/small", "peft", "other")
    (measured,) = card.data.eval_results
    assert (measured.dataset_name, measured.metric_type, measured.metric_value) == ("tickets", "accuracy", 0.625)
    for part in ("**Better than the base model**", f'"owner/small", revision="{COMMIT}"', "| adapter.type |", "MIT"):
        assert part in card.text
    assert f'| start_from.{ADAPTER_FILES[0]} | `"{"c" * 64}"` |' in card.text
    card = ModelCard.load(publish(tmp_path / "whole", "--merged") / "README.md")
    assert card.data.library_name == "transformers" and "peft" not in card.text.split("## Training")[0]


def test_what_must_not_be_published_is_refused(project: Path, publish: Any, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    with pytest.raises(UserError, match="isn't empty"):
        publish(tmp_path / "full")
    params = project / "results/params.yaml"
    text = params.read_text()
    for old, new, message in (
        ("hub: owner/small", "hub: null", "isn't on the Hub"),
        ("A small model.", f"Trained in {project}.", "README.md would contain the path"),
        ("A small model.", "Rows of /scratch/me/rows.csv, cleaned.", "would contain the path /scratch/me"),
        ("A small model.", "AKIAIOSFODNN7EXAMPLE", "README.md would contain a secret key"),
        ("base_precision: fp32", "base_precision: export:int4", "which peft can't load"),
    ):
        params.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=message):
            publish(tmp_path / "new")
        assert not [path for path in (tmp_path / "new").glob("*") if path.name != ".part"]
    params.write_text(text.replace("A small model.", "Like https://host/mnt/x or any/home/y, for /usr/bin/env."))
    publish(tmp_path / "known")
    params.write_text(text.replace("hub: owner/small", "hub: null"))
    publish(tmp_path / "given", "--base", f"other/name@{'b' * 40}")
    params.write_text(text)
