"""A recipe as a project of AI Toolkit, and Olive's configuration as a technique: what is carried, and what isn't."""

import copy
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.olive_projects import CHATS, LAYERS, project, recipe, save_results, tokenizer

import read_olive
import tokenize_data
import write_ai_toolkit
from snaketune.config.technique import Technique
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, write_json
from snaketune.core.layout import MODEL_FILES
from snaketune.platforms.olive import olive_config
from snaketune.platforms.olive import project as ai_toolkit

ROOT = Path(__file__).resolve().parents[3]


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """Any recipe that Olive can train."""
    kind = draw(st.sampled_from(["lora", "dora", "qlora"]))
    targets = st.lists(st.sampled_from(LAYERS), min_size=1, unique=True)
    options = {
        "r": draw(st.integers(1, 512)),
        "lora_alpha": draw(st.floats(1e-3, 1e3)),
        "lora_dropout": draw(st.floats(0, 1)),
        "target_modules": LAYERS if kind == "qlora" else draw(targets),
        "use_dora": kind == "dora",
    }
    technique = Technique(
        description="Drawn.",
        adapter={"type": "lora", "options": options},
        base_precision="nf4" if kind == "qlora" else "fp32",
        learning_rate=draw(st.floats(1e-8, 10)),
        weight_decay=draw(st.floats(0, 1)),
        warmup_share=draw(st.floats(0, 0.999)),
        max_grad_norm=draw(st.floats(0, 100)),
        micro_batch_rows=draw(st.integers(1, 64)),
    )
    shared = {"epochs": draw(st.integers(1, 9)), "batch_rows": draw(st.integers(1, 256))}
    return {**technique.model_dump(exclude={"description"}), **shared, "seed": draw(st.integers(1, 2**31))}


@given(recipes())
def test_a_recipe_comes_back_from_olive_as_it_was(drawn: dict[str, Any]) -> None:
    assert olive_config.refusal(drawn, set(LAYERS)) is None
    written = json.loads(json.dumps(olive_config.configuration(drawn, "model-cache/x", 512)))
    back, left = olive_config.read(written, "olive-config.json")
    assert (back, left) == (olive_config.carried(drawn), [])
    made = read_olive.technique(back, "Back.", set(LAYERS), "olive-config.json")
    again = validated(Technique, made, "again").model_dump()
    assert {key: again[key] for key in ("adapter", "base_precision", "learning_rate")} == {
        key: drawn[key] for key in ("adapter", "base_precision", "learning_rate")
    }


@given(recipes())
def test_the_global_batch_is_kept_within_the_rows_of_memory(drawn: dict[str, Any]) -> None:
    [passed] = olive_config.configuration(drawn, "m", 9)["passes"].values()
    arguments = passed["training_args"]
    rows, steps = arguments["per_device_train_batch_size"], arguments["gradient_accumulation_steps"]
    assert rows * steps == drawn["batch_rows"]
    assert rows <= drawn["micro_batch_rows"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("full", "all weights"), ("peft-ia3", "ia3"), ("peft-prefix", "prefix"), ("peft-vera", "vera"),
        ("qdora", "can't train DoRA"), ("deepspeed", "all weights"), ("lora-zero3", "without DeepSpeed"),
    ],
)  # fmt: skip
def test_what_olive_cant_train_is_refused_with_the_reason(name: str, reason: str) -> None:
    assert reason in str(olive_config.refusal(recipe(name), set(LAYERS)))


def test_qlora_of_some_layers_is_refused_as_olive_would_train_them_all() -> None:
    some = recipe("qlora")
    some["adapter"]["options"]["target_modules"] = ["o_proj", "qkv_proj"]
    assert "every linear layer" in str(olive_config.refusal(some, set(LAYERS)))
    assert olive_config.refusal(some) is None
    for options in ({"use_rslora": True}, {"init_lora_weights": "pissa"}):
        changed = recipe("lora")
        changed["adapter"]["options"] |= options
        assert "no option" in str(olive_config.refusal(changed))


OLDER = {
    "input_model": {"type": "HfModel", "model_path": "m"},
    "passes": {
        "qlora": {
            "type": "QLoRA",
            "compute_dtype": "bfloat16",
            "quant_type": "nf4",
            "double_quant": True,
            "target_modules": ["o_proj", "qkv_proj"],
            "lora_r": 64,
            "lora_alpha": 32,
            "lora_dropout": 0.1,
            "eval_dataset_size": 0.3,
            "training_args": {
                "seed": 7,
                "data_seed": 42,
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 4,
                "gradient_checkpointing": True,
                "learning_rate": 0.0001,
                "num_train_epochs": 3,
                "max_steps": 1200,
                "max_grad_norm": 0.3,
                "output_dir": "models/checkpoints",
            },
        },
        "OnnxConversion": {"type": "OnnxConversion", "target_opset": 17},
    },
    "engine": {"output_dir": "models/qlora"},
}


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/read_olive.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_older_file_becomes_a_technique_and_says_what_it_couldnt_carry(tmp_path: Path) -> None:
    write_json(tmp_path / "olive-config.json", OLDER)
    ran = script(tmp_path / "olive-config.json", "--output", tmp_path / "mine.yaml")
    assert ran.returncode == 0, ran.stderr
    text = (tmp_path / "mine.yaml").read_text()
    made = validated(Technique, yaml.safe_load(text), "mine.yaml")
    options = made.adapter.options
    assert (options.r, options.lora_alpha, options.lora_dropout) == (64, 32, 0.1)
    assert options.target_modules == ["o_proj", "qkv_proj"]
    assert (made.base_precision, made.learning_rate, made.max_grad_norm) == ("nf4", 1e-4, 0.3)
    assert "training: {epochs: 3, batch_rows: 4}, seeds: [7]" in text
    assert [line.split(": ")[1] for line in ran.stderr.splitlines()] == [
        "passes.OnnxConversion",
        "passes.qlora.compute_dtype",
        "passes.qlora.eval_dataset_size",
        "passes.qlora.training_args.gradient_checkpointing",
        "passes.qlora.training_args.max_steps",
        "passes.qlora.training_args.data_seed",
    ]
    again = script(tmp_path / "olive-config.json", "--output", tmp_path / "mine.yaml")
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    assert (tmp_path / "mine.yaml").read_text() == text


def changed(**values: Any) -> dict[str, Any]:
    found = copy.deepcopy(OLDER)
    arguments = values.pop("training_args", {})
    found["passes"]["qlora"] |= values
    found["passes"]["qlora"]["training_args"] |= arguments
    return found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (changed(lora_r=0, lora_dropout="much"), ["passes.qlora:\n  lora_r", "lora_dropout", "'much'"]),
        (changed(lora_r=True), ["lora_r", "integer"]),
        (changed(training_args={"learning_rate": -1}), ["training_args.learning_rate", "greater than 0"]),
        (changed(training_args={"num_train_epochs": 1.5}), ["num_train_epochs", "1.5"]),
        (changed(target_modules=[]), ["target_modules"]),
        (changed(quant_type="fp4"), ["quant_type", "nf4"]),
        (changed(type="LoftQ"), ["LoRA or QLoRA or DoRA", "LoftQ"]),
        ({**OLDER, "passes": {**OLDER["passes"], "more": {"type": "LoRA"}}}, ["expected one"]),  # type: ignore[dict-item]
        ({"passes": {}}, ["found none"]),
        ({"passes": ["QLoRA"]}, ["passes: expected an object"]),
        ({}, ["passes: expected an object"]),
        ([], ["expected an object"]),
        (b'{"passes": {"qlora": {"lora_r": <lora_r>}}}', ["line 1", "placeholders"]),
        (b'{"passes": {}, "passes": {}}', ["twice"]),
        (b"\xff", ["not UTF-8"]),
        (b"", ["line 1", "not JSON"]),
    ],
)
def test_ill_values_are_one_message(content: Any, told: list[str], tmp_path: Path) -> None:
    path = tmp_path / "olive-config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UserError) as raised:
        olive_config.read(read_olive.content_of(path), str(path))
    assert all(part in str(raised.value) for part in [str(path), *told]), raised.value


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(
                st.sampled_from(["passes", "type", "lora_r", "r", "training_args", "seed", "config", "q"]), c
            )
        ),
    )
)
def test_no_object_is_more_than_a_message(value: Any) -> None:
    for content in (value, {"passes": value}, {"passes": {"q": {"type": "qlora", "training_args": value}}}):
        if isinstance(content, dict):
            try:
                olive_config.read(content, "x")
            except UserError as error:
                assert str(error).startswith("x: ") or str(error).startswith("x:\n")


@pytest.fixture
def user_script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The project's program, beside an Olive that only registers."""
    registry = types.ModuleType("olive.data.registry")
    registry.Registry = types.SimpleNamespace(register_pre_process=lambda: lambda function: function)  # type: ignore[attr-defined]
    for name, module in {"olive": types.ModuleType("olive"), "olive.data": types.ModuleType("olive.data")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "olive.data.registry", registry)
    monkeypatch.syspath_prepend(str(ROOT / "report/ai_toolkit"))
    monkeypatch.delitem(sys.modules, "qlora_user_script", raising=False)
    import qlora_user_script

    return qlora_user_script


def test_a_project_learns_the_tokens_that_a_run_learns(
    user_script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = tokenizer()
    known.save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "phi3"})
    rows = [*({"messages": messages} for messages in CHATS), {"text": "abc"}]
    monkeypatch.setattr(
        user_script.Dataset, "from_list", lambda found: types.SimpleNamespace(with_format=lambda _: found)
    )
    learned = [pair for row in rows for pair in tokenize_data.of_row(known, row, 100)]
    expected = [
        (ids, [token if answer else user_script.IGNORED for token, answer in zip(ids, answers, strict=True)])
        for ids, answers in learned
    ]
    found = user_script.answers_of_chats(rows, str(tmp_path), 100)
    assert [(row["input_ids"], row["labels"]) for row in found] == expected
    assert len(found) == len(rows)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return save_results(tmp_path)


@pytest.mark.parametrize("technique", ["lora", "qlora", "dora"])
def test_a_project_is_whole_and_holds_the_base(results: Path, technique: str) -> None:
    out = project(results, technique)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    base = {f"model-cache/tiny/{name}" for name in MODEL_FILES}
    assert found == {*ai_toolkit.FILES, *base, "manifest.json", "provenance.json"}
    assert set(read_json(out / "manifest.json")["files"]) == {*ai_toolkit.FILES, *base}
    configuration = read_json(out / "finetuning/olive-config.json")
    assert (out / configuration["input_model"]["model_path"] / "config.json").is_file()
    for rows in configuration["data_configs"]:
        assert (out / rows["user_script"]).is_file()
        assert read_jsonl(out / rows["load_dataset_config"]["data_files"]) == [{"messages": CHATS[0]}] * 4
    assert read_json(out / "infra/finetuning.config.json")["COMMANDS"][-1] == "python3 ./finetuning/invoke_olive.py"
    assert f"models/{technique}" in (out / "README.md").read_text()
    pins = (out / "setup/requirements.txt").read_text().split()
    locked = (ROOT / "envs/train/requirements.txt").read_text().split()
    assert [pin for pin in pins if pin not in locked] == [ai_toolkit.OLIVE]


def test_a_model_of_the_hub_is_downloaded_at_its_commit(results: Path) -> None:
    out = project(results, "lora", hub="owner/small", revision="a" * 40)
    assert not (out / "model-cache").exists()
    commands = read_json(out / "infra/finetuning.config.json")["COMMANDS"]
    assert any(f"hf download owner/small --revision {'a' * 40}" in command for command in commands)
    assert "hf download owner/small" in (out / "README.md").read_text()
    model_path = read_json(out / "finetuning/olive-config.json")["input_model"]["model_path"]
    assert any(command.endswith(f"./{model_path}") for command in commands)


def test_a_refused_technique_and_changed_rows_leave_nothing(results: Path) -> None:
    with pytest.raises(UserError, match="full can't be a project of AI Toolkit: it trains all weights"):
        project(results, "full")
    rows = results / "data/train.jsonl"
    rows.write_text('{"messages": [], "tools": [{"name": "weather"}]}\n')
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: projects hold texts only, found tools"):
        write_ai_toolkit.rows_of(results / "data", "train")
    rows.write_text("{}\n")
    with pytest.raises(UserError, match="has changed since"):
        project(results, "lora")
    assert not (results / "project").exists()
