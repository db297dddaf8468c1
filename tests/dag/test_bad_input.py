"""A user's mistake gives one clear message, before any job starts, and no traceback."""

from pathlib import Path

import pytest
from support.experiments import UNTRAINED
from support.workspace import Workspace

MISTAKES = {
    "an unknown key": (
        "config/config.yaml",
        "keep_intermediates:",
        "keep_intermediate:",
        ["keep_intermediate: unknown key; did you mean keep_intermediates?"],
    ),
    "a wrong type": ("config/config.yaml", "epochs: 2", "epochs: two", ["training.epochs", "integer", "'two'"]),
    "an unknown technique": (
        "config/experiments/test.yaml",
        "- lora",
        "- lorra",
        ["there is no technique 'lorra'", "did you mean lora?"],
    ),
    "an unknown precision": (
        "config/experiments/test.yaml",
        "- int4",
        "- int3",
        ["there is no export 'int3'", "did you mean int8?"],
    ),
    "a budget of what isn't measured": (
        "config/config.yaml",
        "onnx-fp32-int8: {",
        "onnx-fp32-int8: {smallest_prompt_agreement: 1, ",
        ["parity.budgets.onnx-fp32-int8.smallest_prompt_agreement: only a genai precision"],
    ),
    "a budget of an unknown precision": (
        "config/config.yaml",
        "onnx-fp32-int8:",
        "onnx-fp32-int9:",
        ["there is no conversion step onnx-fp32-int9", "no config/exports/int9.yaml"],
    ),
    "an unknown key of a technique": (
        "config/techniques/lora.yaml",
        "r: 8",
        "rank: 8",
        ["config/techniques/lora.yaml", "rank: unknown key"],
    ),
    "modules that Phi-3 doesn't have": (
        "config/techniques/lora.yaml",
        "all-linear",
        "[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]",
        [
            "config/techniques/lora.yaml",
            "q_proj, k_proj, v_proj, gate_proj, up_proj match no module of tiny-phi3",
            "qkv_proj",
            "fuses",
        ],
    ),
    "a key that is given twice": (
        "config/experiments/test.yaml",
        "seeds:",
        "seeds: [2]\nseeds:",
        ["config/experiments/test.yaml, line", "the key 'seeds' is there twice"],
    ),
    "not YAML": (
        "config/techniques/lora.yaml",
        "adapter:",
        "adapter: [",
        ["config/techniques/lora.yaml, line", "not YAML"],
    ),
}


def test_a_data_file_that_is_not_there(edited: Workspace) -> None:
    edited.write("config/scenarios/mine.yaml", {"task": "chat", "source": {"path": "data/mine.jsonl"}})
    edited.edit("config/experiments/test.yaml", "seeds:", "scenarios: [mine]\nseeds:")
    shown = edited.forked("--cores", "1")
    assert "source.path: data/mine.jsonl: no such file; expected a JSONL, JSON, CSV or Parquet file" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_configuration(edited: Workspace, mistake: str) -> None:
    name, old, new, expected = MISTAKES[mistake]
    edited.edit(name, old, new)
    shown = edited.forked("--cores", "1")
    text = shown.stdout + shown.stderr
    assert shown.returncode != 0
    for part in expected:
        assert part in text
    assert "Traceback" not in text
    assert "Finished jobid" not in text


def test_a_mistake_in_the_users_file_even_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing can be written below a file.
    monkeypatch.setenv("HOME", str(tmp_path / "mine.jsonl"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    workspace = Workspace.make(tmp_path, {**UNTRAINED, "scenarios": ["mine"]})
    (tmp_path / "mine.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": \n')
    workspace.write("config/scenarios/mine.yaml", {"task": "classification", "source": {"path": "mine.jsonl"}})
    shown = workspace.forked("--cores", "1", "--retries", "2", "results/data/mine/card.json")
    text = shown.stdout + shown.stderr
    assert shown.returncode != 0
    assert "error: mine.jsonl:2: not JSON" in text
    assert "Trying to restart" not in text
    assert "Traceback" not in text
    assert not (tmp_path / "results/data").exists()
