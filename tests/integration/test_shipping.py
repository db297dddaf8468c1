"""A package answers where only what its requirements.txt names is installed, and in Foundry Local."""

import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import packages
from support.environments import installed
from support.experiments import SMALL, run_of, small, technique_at
from support.export_environment import in_export_environment
from support.models import tiny_phi3
from support.workspace import Workspace
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from snaketune.config.export import Genai
from snaketune.core.files import read_json, read_jsonl, write_json
from snaketune.core.layout import MODEL_FILES
from snaketune.core.manifest import record
from snaketune.data.chat_template import CHAT_TEMPLATE, END, PAD

ROOT = Path(__file__).resolve().parents[2]
FOUNDRY = "foundry-local-sdk==2.2.1"
CONTEXT = 96
# Nothing listens on this port: the catalog of the public can't be asked.
CHAT = """
import sys
from foundry_local_sdk import CatalogType, ChatSession, Configuration, FoundryLocalManager, MessageItem
from foundry_local_sdk import ModelInfoBuilder, Request, RequestOptions, SearchOptions

FoundryLocalManager.initialize(
    Configuration(
        app_name="package-test",
        app_data_dir=sys.argv[2],
        catalog_urls=[("http://127.0.0.1:9/asset-gallery/v1.0/models", None)],
        disable_nonessential_telemetry=True,
    )
)
with FoundryLocalManager.instance as manager, ModelInfoBuilder() as metadata:
    metadata.set_string_property("task", "chat-completion")
    catalog = manager.get_catalog(CatalogType.LOCAL)
    model = catalog.register_model(model_path=sys.argv[1], model_id="package-generic-cpu:1", metadata=metadata)
    model.load()
    with ChatSession(model) as session, Request().add_item(MessageItem.user(sys.argv[3])) as request:
        # It would leave room for 2048 tokens, more than so small a context.
        session.set_options(RequestOptions(search=SearchOptions(temperature=0.0, max_output_tokens=32)))
        with session.process_request(request) as response:
            print("answer:", "".join(part.text for item in response for part in item.parts))
    model.unload()
"""


def letters() -> Tokenizer:
    """A tokenizer of 64 tokens: letters, and those of Phi-3's chat format."""
    special = [PAD, "<|assistant|>", END, "<|system|>", "<|user|>"]
    kept = [*map(chr, range(ord("a"), ord("z") + 1)), *map(chr, range(ord("A"), ord("Z") + 1)), *"ĠĊ.,?!:"]
    made = Tokenizer(BPE({token: number for number, token in enumerate([*special, *kept])}, [], unk_token=PAD))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return made


def merged(directory: Path) -> Path:
    """A random model with a chat template, as merged/ of a run is."""
    # The runtime wants heads whose size is a multiple of 16.
    tiny_phi3(CONTEXT, hidden_size=64, num_key_value_heads=4, bos_token_id=0).save_pretrained(directory)
    letters().save(str(directory / "tokenizer.json"))
    special = {"bos_token": PAD, "eos_token": END, "pad_token": PAD, "unk_token": PAD}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE}
    write_json(directory / "tokenizer_config.json", {**kind, **special})
    record(directory, {}, [], [directory / name for name in MODEL_FILES])
    return directory


def done(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a random Phi-3 that onnxruntime-genai's builder made."""
    directory = tmp_path_factory.mktemp("shipping")
    where = ("--model-directory", merged(directory / "merged"), "--output-directory", directory / "genai")
    recipe = json.dumps({"method": "genai", "options": Genai(weights="int4").model_dump()})
    built = in_export_environment("scripts/build_genai.py", "--recipe", recipe, *where)
    assert built.returncode == 0, built.stderr
    run = packages.save_run(directory / "results", directory / "genai")
    made = done(
        *(sys.executable, "scripts/package_model.py", "--recipe", json.dumps(packages.RECIPE)),
        *("--results", directory / "results", "--template", "report/model_card.md.j2", "--program", "report/run.py"),
        *("--lock", "envs/train/requirements.txt", "--output-directory", run / "package"),
        cwd=ROOT,
    )
    assert made.returncode == 0, made.stderr
    return run / "package"


@pytest.fixture(scope="module")
def python(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the package's requirements and nothing else."""
    return installed(tmp_path_factory.mktemp("shipped"), (package / "requirements.txt").read_text())


def test_a_package_answers_where_there_is_no_torch(package: Path, python: Path, tmp_path: Path) -> None:
    for name in ("torch", "transformers"):
        missing = done(python, "-c", f"import {name}")
        assert "ModuleNotFoundError" in missing.stderr, missing.stdout
    answered = done(python, package / "run.py", "Name it", cwd=tmp_path)
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()
    assert f"context of {CONTEXT} tokens is full" in answered.stderr or len(answered.stdout) < CONTEXT
    assert not list(tmp_path.iterdir())
    assert done(python, package / "run.py", "Name it", cwd=tmp_path).stdout == answered.stdout


def test_without_a_question_each_line_is_one_until_the_context_is_full(package: Path, python: Path) -> None:
    alone = done(python, package / "run.py", input="")
    assert (alone.returncode, alone.stdout, alone.stderr) == (0, "", "")
    chatted = done(python, package / "run.py", input="Name it\n\n" + "a" * CONTEXT + "\n")
    assert chatted.returncode == 1
    assert chatted.stdout.startswith(done(python, package / "run.py", "Name it").stdout)
    assert [line for line in chatted.stderr.splitlines() if line.startswith("error: ")] == [
        chatted.stderr.splitlines()[-1]
    ]
    assert f"of the model's {CONTEXT} tokens" in chatted.stderr
    assert "Traceback" not in chatted.stderr


@pytest.fixture(scope="module")
def foundry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with Foundry Local's SDK, which brings its own runtime."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(f"{FOUNDRY} is tried on Linux x86_64 only, this is {sys.platform} {platform.machine()}")
    return installed(tmp_path_factory.mktemp("foundry"), FOUNDRY)


def chat(foundry: Path, package: Path, data: Path, question: str) -> str:
    """Foundry Local's answer, with no network but the loopback where this kernel can give that."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    without_network = alone if done(*alone, "true").returncode == 0 else []
    chatted = done(*without_network, foundry, "-c", CHAT, package, data, question, timeout=300)
    assert chatted.returncode == 0, chatted.stderr
    return chatted.stdout.partition("answer: ")[2].rstrip("\n")


def test_foundry_local_answers_as_the_package_does(package: Path, python: Path, foundry: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in package.iterdir()}
    answer = chat(foundry, package, tmp_path, "Name it")
    assert len(answer) > 8
    assert done(python, package / "run.py", "Name it").stdout.startswith(answer)
    assert before == {path.name: path.read_bytes() for path in package.iterdir()}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    budget = {"onnx-fp32-genai-int4": {"kl_divergence": 1.0, "smallest_metric_change": -1.0}}
    precisions = {"precisions": ["fp32", "genai-int4"], "parity": {"budgets": budget}}
    # So much that they say something: after one epoch they end at once.
    training = {"training": {**SMALL["training"], "epochs": 20}}
    experiment = {**SMALL, "techniques": ["dora"], **precisions, **training}
    made = small(tmp_path_factory.mktemp("packages"), experiment)
    made.write("config/techniques/dora.yaml", technique_at("dora", 0.01))
    return made


@pytest.fixture(scope="module")
def packaged(workspace: Workspace) -> Workspace:
    workspace.run("package")
    return workspace


def test_foundry_local_chats_with_what_a_technique_trained(
    packaged: Workspace, python: Path, foundry: Path, tmp_path: Path
) -> None:
    run = run_of(packaged, "dora")
    rows = read_jsonl(packaged.path / "results/data/test-areas/test.jsonl")
    questions = [row["messages"][0]["content"] for row in rows]
    told = ((question, done(python, run / "package/run.py", question).stdout) for question in questions)
    question, expected = next((question, answer) for question, answer in told if answer.strip())
    answer = chat(foundry, run / "package", tmp_path, question)
    assert answer.strip()
    assert expected.startswith(answer)


def test_the_workflow_packages_every_run_that_ends_with_one_model(packaged: Workspace) -> None:
    workspace = packaged
    made = sorted((workspace.path / "results/runs").rglob("package"))
    assert [path.parts[-3] for path in made] == ["base", "dora"]
    for path in made:
        assert done("sha256sum", "--quiet", "-c", "SHA256SUMS", cwd=path).returncode == 0
        assert read_json(path / "manifest.json")["recipe"]["precision"] == "genai-int4"
    assert "Nothing to be done" in workspace.run("-n", "package")
    workspace.edit("report/card/facts.md.j2", "## Limits", "## What was not measured")
    planned = {rule for rule, due in workspace.plans("package").values() if due}
    assert planned == {"package_model"}
    # A prefix can't be merged into one model.
    workspace.edit(workspace.experiment, "- dora", "- dora\n- qlora\n- peft-prefix")
    made = {name.split("/")[4] for name in workspace.plans("package") if "/package/" in name}
    assert made == {"base", "dora", "qlora"}


@pytest.mark.parametrize("precision", ["int4", "genai-fp32"])
def test_a_precision_that_cant_be_packaged_is_one_message(workspace: Workspace, precision: str) -> None:
    other = {**SMALL, "precisions": ["fp32", "int4", "genai-int4"], "package": {"precision": precision}}
    workspace.write("config/experiments/other.yaml", other)
    refused = replace(workspace, experiment="config/experiments/other.yaml").forked("-n", "package")
    assert refused.returncode == 1
    assert f"package.precision: {precision}" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
