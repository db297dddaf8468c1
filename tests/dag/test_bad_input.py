"""A user's mistake gives one clear message, before any job starts, and no traceback."""

import re
from pathlib import Path

import pytest
from support.experiments import UNTRAINED
from support.workspace import Workspace

CONFIG, OVERLAY, LORA = "config/config.yaml", "config/experiments/test.yaml", "config/techniques/lora.yaml"
# Further ones are in unit/config; these are of each kind of file.
MISTAKES = [
    (CONFIG, "keep_intermediates:", "keep_intermediate:", "keep_intermediate: unknown key; did you mean keep_inter"),
    (OVERLAY, "- lora", "- lorra", "there is no technique 'lorra' (config/techniques/lorra.yaml); did you mean lora?"),
    (OVERLAY, "seeds:", "seeds: [2]\nseeds:", "config/experiments/test.yaml, line 6: the key 'seeds' appears twice"),
    (LORA, "r: 8", "rank: 8", "config/techniques/lora.yaml:\n  adapter.lora.options.rank: unknown key"),
    (CONFIG, "keep_intermediates:", "\tkeep_intermediates:", "config/config.yaml, line "),
    (LORA, "adapter:", "adapter: [", "config/techniques/lora.yaml, line 5: not YAML"),
]


def test_a_data_file_that_is_not_there(edited: Workspace) -> None:
    edited.write("config/scenarios/mine.yaml", {"task": "chat", "source": {"path": "data/mine.jsonl"}})
    edited.edit(OVERLAY, "seeds:", "scenarios: [mine]\nseeds:")
    shown = edited.forked("--cores", "1")
    assert "source.path: data/mine.jsonl: no such file; expected a JSONL, JSON, CSV or Parquet file" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(("name", "old", "new", "expected"), MISTAKES)
def test_a_mistake_in_the_configuration(edited: Workspace, name: str, old: str, new: str, expected: str) -> None:
    edited.edit(name, old, new)
    shown = edited.forked("--cores", "1")
    text = shown.stdout + shown.stderr
    assert shown.returncode != 0
    assert expected in text
    assert "Traceback" not in text
    assert "  Preparing" not in text and "  Collecting" not in text


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
    assert text.count("mine.jsonl:2: not JSON") == 1
    assert text.endswith("\n  log: logs/prepare_data/mine.log\n")
    assert "Trying to restart" not in text
    assert "Traceback" not in text
    assert not (tmp_path / "results/data").exists()
    (tmp_path / "mine.jsonl").write_text(
        "".join(f'{{"text": "word {n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(60))
    )
    shown = workspace.forked("--cores", "1", "results/data/mine/card.json")
    assert re.fullmatch(r"1/1 +\d+ s  Preparing the data of mine\n", shown.stderr.split("usage.\n")[1]), shown.stderr
