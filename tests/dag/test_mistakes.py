"""Forty mistakes that people make with such programs: each ends in one message that names the place and what to write.

They are from public reports about Snakemake, TRL, LLaMA-Factory, axolotl and their like, and from the steps of our own
documents. What has its proof beside the code that it tests is in `PROVEN`.
"""

import ast
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import yaml
from snakemake.cli import main
from support.experiments import UNTRAINED
from support.workspace import REPOSITORY, Workspace

from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml
from snaketune.platforms.registry import read_matrix

DEFAULT = read_yaml(REPOSITORY / "config/config.yaml")
TECHNIQUE = {"description": "mine", "learning_rate": 0.001}
HUB = {"description": "mine", "licence": "MIT", "hub": "owner/name", "revision": "0" * 40}
CHAT = "task: chat\nsource: {path: a.jsonl}\n"


class Configured(NamedTuple):
    """What the experiment says, `mine.yaml` in folders of config/, and the message."""

    experiment: dict[str, Any]
    files: dict[str, Any]
    says: str


def with_technique(says: str, **keys: Any) -> Configured:
    return Configured({}, {"techniques": TECHNIQUE | keys}, says)


def with_adapter(says: str, kind: str, **options: Any) -> Configured:
    return with_technique(says, adapter={"type": kind, "options": options})


def with_scenario(says: str, text: str = CHAT, path: str = "a.jsonl") -> Configured:
    return Configured({}, {"scenarios": text.replace("a.jsonl", path)}, says)


CONFIGURED = {
    "a shape": {
        "a list of one without brackets": Configured(
            {"techniques": "lora"}, {}, r"techniques: .* valid list \(found 'lora'\); write \[lora\]"
        ),
        "half an epoch": Configured(
            {"training": {"epochs": 0.5}}, {}, r"training\.epochs: .* valid integer.* \(found 0\.5\)"
        ),
        "a type as the whole adapter": with_technique(
            r"adapter\S*: expected keys and values \(found 'lora'\)", adapter="lora"
        ),
        "a key of another program": with_technique(
            "load_in_4bit: unknown key; known keys are adapter, base_precision,", load_in_4bit=True
        ),
        "JSON in a prompt": with_scenario(
            r"prompt may contain .*write \{\{ and \}\} for literal braces", CHAT.replace("chat", "qa") + 'prompt: \'Write {"a": 1}: {question}\'\n'
        ),
    },
    "a name": {
        "capitals": Configured({"techniques": ["LoRA"]}, {}, r"no technique 'LoRA' .*; did you mean lora\?"),
        "a file instead of its name": Configured(
            {"techniques": ["config/techniques/lora.yaml"]}, {}, r"techniques\.0: .* without its folder and \.yaml"
        ),
        "the hub's name of a model": Configured(
            {"models": ["Qwen/Qwen3-0.6B"]}, {}, r"models\.0: .*; `make pin MODEL=Qwen/Qwen3-0\.6B` writes the file"
        ),
        "the address of a model": Configured(
            {}, {"models": HUB | {"hub": "https://the.hub/owner/name"}}, "hub: expected owner/name, .*without an address"
        ),
        "a precision of llama.cpp": Configured(
            {"precisions": ["fp32", "q4_k_m"]}, {}, "no export 'q4_k_m' .*; there are .*fp16, .*int8"
        ),
    },
    "YAML": {
        "a country that is false": with_scenario(
            r"phone_regions\.0: .*\(found False\); write it in quotes: YAML reads no", CHAT + "phone_regions: [NO]\n"
        ),
        "a commit of digits alone": Configured(
            {}, {"models": HUB | {"revision": int("12" * 20)}}, r"revision: .*\(found 1212\d+\); write it in quotes"
        ),
        "a number that is a text to a method of peft": with_adapter(
            r"module_dropout: .*\(found '5e-2'\); YAML reads it as a text: write 0\.05", "loha", module_dropout="5e-2"
        ),
        "a decimal comma": with_technique(
            r"learning_rate\S*: .* unable to parse string as a number \(found '0,0002'\)", learning_rate="0,0002"
        ),
        "a tab": Configured(
            {}, {"techniques": "engine:\n\ttype: torch\n"}, r"techniques/mine\.yaml, line 2: not YAML .*; indent with spaces"
        ),
        "a colon in a text": with_scenario(
            r"scenarios/mine\.yaml, line 1: not YAML .*; put a text that has a colon", "description: Route: all\n" + CHAT
        ),
        "a path of Windows in quotes": with_scenario(
            r"line 2: not YAML .*; within \"…\" a \\ begins an escape: write the path with /", path='"C:\\data\\a.jsonl"'
        ),
    },
    "a path": {
        "the home directory as ~": with_scenario(
            r"source\.path: ~/a\.jsonl: no such file; .*; ~ and variables aren't expanded", path="~/a.jsonl"
        ),
        "a pattern": with_scenario(
            r"source\.path: data/\*\.jsonl: no such file; .*: list the files", path="data/*.jsonl"
        ),
        "an address": with_scenario(
            r"source\.path: https://\S+: no such file; .*; download it", path="https://example.org/a.jsonl"
        ),
    },
    "what doesn't fit": {
        "4 bits without an adapter": with_technique("nf4 needs an adapter", base_precision="nf4"),
        "8 bits of AdamW with DeepSpeed": with_technique(
            "optimizer adamw-8bit needs engine.type: torch", optimizer="adamw-8bit", engine={"type": "deepspeed"}
        ),
        "a computed format that there isn't": Configured(
            {"training": {"compute_precision": "fp8"}}, {}, r"training\.compute_precision: .*'bf16' or 'fp16' \(found 'fp8'\)"
        ),
        "modules that the model has fused": with_adapter(
            r"mine\.yaml: adapter\.options\.target_modules: q_proj, v_proj match no module of phi3-1m, .*qkv_proj",
            "lora",
            target_modules=["q_proj", "v_proj"],
        ),
    },
}  # fmt: skip

# How Snakemake is called after the experiment of the tests, and what it says.
CALLED = {
    "a key misspelt on the command line": (
        ["--config", "seed=3"],
        r"yaml or --config:\n  seed: unknown key; did you mean seeds\?",
    ),
    "a nested value that isn't one": (
        ["--config", "training={epochs: two}"],
        r"training\.epochs: .*unable to parse string as an integer \(found 'two'\)",
    ),
    "a technique's file as the experiment": (
        ["--configfile", "config/techniques/lora.yaml"],
        r"config/config\.yaml or config/techniques/lora\.yaml:\n  description: unknown key",
    ),
    "a file that isn't there": (
        ["--configfile", "config/experiments/missing.yaml"],
        r"error: --configfile config/experiments/missing\.yaml: no such file",
    ),
    "a file that isn't there, on a cluster": (
        ["--profile", "profiles/slurm", "--configfile", "missing.yaml"],
        r"error: --configfile missing\.yaml: no such file",
    ),
    "a file that isn't YAML": (
        ["--configfile", "Makefile"],
        "error: --configfile Makefile: not YAML, .*; indent with spaces",
    ),
    "a target after --configfile": (
        ["--configfile", "config/experiments/smollm2.yaml", "package"],
        "error: --configfile package: no such file; a target stands before --configfile",
    ),
    "a point in --config": (["--config", "training.epochs=2"], r"training\.epochs=2: .* 'training=\{epochs: 1\}'"),
    "no value in --config": (["--config", "seeds"], "error: --config seeds: expected a key .* and its value"),
    "a target misspelt": (["results/sumary.csv"], r"MissingRuleException:\n.*results/sumary\.csv"),
}

# The test of a mistake that is proven elsewhere; of bad data, the case.
PROVEN = {
    "a machine": {
        "no compiler": "tests/unit/training/test_techniques.py::test_deepspeed_trains_without_a_compiler_and_a_home",
        "no file that can be written in the home directory": "tests/dag/test_bad_input.py::test_a_mistake_in_the_users_file_even_without_a_home",
        "no space left": "tests/unit/core/test_files.py::test_a_full_disk_and_no_other_failure_is_one_clear_message",
        "too little space for a training": "tests/unit/core/test_files.py::test_missing_space_is_told_before_any_work",
        "a disk without locks": "tests/unit/core/test_files.py::test_a_file_system_without_locks_is_named_as_such",
        "two runs at once, and a lock left by a kill": "tests/end_to_end/test_records.py::test_two_runs_in_one_directory_and_a_lock_of_a_killed_one_are_one_clear_message",
        "no network": "tests/unit/data/test_read_files.py::test_a_hub_out_of_reach_gives_one_message",
    },
    "results": {
        "a result edited by hand": "tests/end_to_end/test_records.py::test_a_manifest_edited_by_hand_stops_the_next_job_and_nothing_is_overwritten",
        "a run that isn't there": "tests/end_to_end/test_chat.py::test_what_isnt_there_is_named",
    },
    "a model": {
        "one that is quantized already": "tests/unit/data/test_fetch_model.py::test_a_quantized_model_is_refused",
        "a directory without a model": "tests/unit/config/test_config.py::test_what_the_files_of_an_experiment_name_is_there",
    },
    "data": dict.fromkeys(
        ("csv-semicolons", "csv-latin-1", "id-twice", "single-quotes", "chat-for-classification", "spreadsheet"),
        "tests/unit/data/bad_data/cases.yaml",
    ),
}  # fmt: skip


def test_there_are_forty_of_more_than_six_kinds() -> None:
    kinds = Counter({kind: len(ones) for kind, ones in (CONFIGURED | PROVEN).items()}) + Counter(calls=len(CALLED))
    assert kinds.total() >= 40
    assert len(kinds) >= 6
    for names in PROVEN.values():
        for name, place in names.items():
            path, _, function = place.partition("::")
            wanted = f"def {function}(" if function else f"- name: {name}\n"
            assert wanted in (REPOSITORY / path).read_text(encoding="utf-8"), place


@pytest.mark.parametrize(
    "mistake", [pytest.param(one, id=name) for ones in CONFIGURED.values() for name, one in ones.items()]
)
def test_a_mistake_in_config_is_one_message(mistake: Configured, tmp_path: Path) -> None:
    content = DEFAULT | mistake.experiment | {folder: ["mine"] for folder in mistake.files}
    for folder, written in mistake.files.items():
        path = tmp_path / f"config/{folder}/mine.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(written if isinstance(written, str) else yaml.safe_dump(written))
    with pytest.raises(UserError, match=mistake.says):
        read_matrix(content, tmp_path, REPOSITORY)


def test_a_learning_rate_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "config/techniques/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("description: mine\nlearning_rate: 1e-4\n")
    assert read_yaml(path)["learning_rate"] == "1e-4"
    read = read_matrix(DEFAULT | {"techniques": ["mine"]}, tmp_path, REPOSITORY)
    assert read.techniques["mine"].learning_rate == 1e-4


@pytest.mark.parametrize(("arguments", "says"), CALLED.values(), ids=CALLED)
def test_a_mistaken_call_is_one_message_and_writes_nothing(
    finished: Workspace, arguments: list[str], says: str
) -> None:
    before = sorted((finished.path / "results").rglob("*"))
    own = [] if "--configfile" in arguments else ["--configfile", finished.experiment]
    call = ["snakemake", *own, "--cores", "1", *arguments]

    def called() -> None:
        # profiles/default looks at the call itself.
        with patch.object(sys, "argv", call):
            main(call[1:])

    shown = finished.in_fork(called)
    text = shown.stdout + shown.stderr
    assert shown.returncode == 1
    assert re.search(says, text, re.DOTALL), text
    assert "Traceback" not in text
    assert sorted((finished.path / "results").rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("demo EXPERIMENT=mine.yaml", "EXPERIMENT=mine.yaml: no such file: give the path of a YAML file"),
        ("new", "DATA is missing: make new DATA=my.csv"),
        ("chat", "RUN is missing: make chat RUN=results/runs/MODEL/"),
        ("diff A=results", "B is missing: make diff B=results/runs/MODEL/"),
    ],
)
def test_make_says_what_is_missing(words: str, says: str) -> None:
    call = ["make", *words.split(), "--dry-run"]
    ran = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert says in ran.stderr


def test_an_old_python_is_told_which_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that couldn't run the rest: Python 3.6 is `python3` on clusters with RHEL 8."""
    script = REPOSITORY / "scripts/make_environment.py"
    ast.parse(script.read_text(), feature_version=(3, 6))
    monkeypatch.setattr(sys, "version_info", (3, 6, 8))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed, this is .* PYTHON=python3\.12"):
        runpy.run_path(str(script))


def test_spaces_and_umlauts_in_paths_work(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path / "Ümläute & eigene Daten", {**UNTRAINED, "scenarios": ["mine"]})
    (workspace.path / "Fälle (neu).csv").write_text(
        "text,label\n" + "".join(f"word {n},{'ab'[n % 2]}\n" for n in range(60))
    )
    workspace.write("config/scenarios/mine.yaml", {"task": "classification", "source": {"path": "Fälle (neu).csv"}})
    workspace.run("results/data/mine/card.json")
    assert (workspace.path / "results/data/mine/card.json").is_file()
