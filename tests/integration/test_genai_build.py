"""What onnxruntime-genai's builder makes of a model is that model, for the families we name, and the same at every build."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.chat_templates import TEMPLATES
from support.chat_templates import tokenizer as byte_tokenizer
from support.export_environment import in_export_environment
from support.random_models import FAMILIES, merged
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import evaluate
from fetch_model import settle_tokens
from snaketune.config.export import Auto, Genai, LossBudget
from snaketune.core.files import read_json, write_json
from snaketune.core.layout import GENAI_FILES, MODEL_FILES
from snaketune.core.manifest import record
from snaketune.data.chat_template import CHAT_TEMPLATE, END, PAD
from snaketune.data.settled_template import settled_template
from snaketune.data.tokens import Rows, write_rows
from snaketune.inference.decoding import answer_nll, candidate_likelihoods, generate, log_softmax

ROOT = Path(__file__).resolve().parents[2]
FP32 = Genai(weights="fp32").model_dump()
INT4 = Genai(weights="int4").model_dump()
MIXED = {**INT4, "mixed_precision": "last_matmul:int8"}
WORDS = "<|user|>\nName it: naïve 10 €\n<|end|>\n<|assistant|>\n"


def build(
    model: Path, out: Path, options: dict[str, Any], seed: str = "", tokens: Path | None = None
) -> subprocess.CompletedProcess[str]:
    places = ["--model-directory", model, "--output-directory", out]
    places += ["--calibration-directory", tokens] if tokens else []
    recipe = json.dumps({"method": "genai-auto" if tokens else "genai", "options": options})
    return in_export_environment("scripts/build_genai.py", "--recipe", recipe, *places, seed=seed)


def built(model: Path, out: Path, options: dict[str, Any], tokens: Path | None = None) -> Any:
    from snaketune.inference.genai_backend import GenaiBackend

    done = build(model, out, options, tokens=tokens)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, done.stdout
    assert {path.name for path in out.iterdir()} == {*GENAI_FILES, "manifest.json", "provenance.json"}
    return GenaiBackend(out / "model.onnx", 1)


def rows_of(lengths: list[int]) -> Rows:
    generator = np.random.default_rng(0)
    ids = [generator.integers(5, 261, length) for length in lengths]
    return Rows(ids, [np.arange(length) >= length // 2 for length in lengths])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: Any, tmp_path_factory: Any) -> tuple[Path, Path]:
    """Directories of a merged model and of its packages."""
    directory = tmp_path_factory.mktemp("family")
    return merged(directory / "merged", **FAMILIES[request.param]), directory


def test_a_package_is_the_model_of_torch(family: tuple[Path, Path]) -> None:
    from snaketune.inference.torch_backend import TorchBackend

    model, directory = family
    torch_backend = TorchBackend(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
    backend = built(model, directory / "genai-fp32", FP32)
    rows = rows_of([5, 12, 12, 40, 60])
    for ids in rows.ids:
        expected, found = (b.forward(ids[None], None, len(ids))[0] for b in (torch_backend, backend))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    candidates = [np.array([7]), np.array([7, 9, 20]), np.array([100, 4])]
    for score in (
        lambda b: candidate_likelihoods(b, rows.prompts, candidates),
        lambda b: answer_nll(b, rows),
        lambda b: np.array([len(made) for made, _ in generate(b, rows.prompts, {4}, 24)]),
    ):
        np.testing.assert_allclose(score(backend), score(torch_backend), atol=1e-3)
    assert generate(backend, rows.prompts, {4}, 24) == generate(torch_backend, rows.prompts, {4}, 24)


@pytest.mark.parametrize("family", [name for name in FAMILIES if "," not in name], indirect=True)
def test_four_bits_stay_near_and_prompts_are_those_of_our_tokenizer(family: tuple[Path, Path]) -> None:
    model, directory = family
    backend = built(model, directory / "genai-int4", INT4)
    logits = backend.forward(rows_of([30]).ids[0][None], None, 30)[0]
    assert np.isfinite(logits).all()
    small, whole = directory / "genai-int4/model.onnx_data", model / "model.safetensors"
    assert small.stat().st_size < 0.3 * whole.stat().st_size
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert backend.encode([{"role": "user", "content": "Name it: naïve 10 €\n"}]) == tokenizer.encode(WORDS).ids
    # A template as it is settled when a model is fetched needs nothing that the package's own program lacks.
    messages = [{"role": role, "content": "naïve\n10 €"} for role in ("user", "assistant", "user")]
    for template, *_ in TEMPLATES.values():
        known = byte_tokenizer(template, bos_token=PAD, eos_token=END)
        known.chat_template = settled_template(known)
        rendered = backend.tokenizer.apply_chat_template(
            json.dumps(messages), template_str=known.chat_template, add_generation_prompt=True
        )
        assert rendered == known.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("family", ["llama", "qwen2"], indirect=True)
def test_bits_chosen_within_a_budget_run_in_the_package(family: tuple[Path, Path]) -> None:
    from snaketune.inference.torch_backend import TorchBackend

    model, directory = family
    tokens, names = directory / "tokens", ("train.safetensors", "validation.safetensors")
    for name in names:
        write_rows(tokens / name, rows_of([30] * 8))
    record(tokens, {}, [], [tokens / name for name in names])
    options = Auto(budget=LossBudget(kl_divergence=1.0)).model_dump()
    backend = built(model, directory / "genai-auto", options, tokens)
    chosen = read_json(directory / "genai-auto/manifest.json")["recipe"]["chosen"]
    assert chosen["bits"] == dict.fromkeys(("table_and_head", "attention", "gate_and_up", "down"), 4)
    assert chosen["proven"]["kl_divergence"]["upper"] <= 1.0
    ids = rows_of([30]).ids[0][None]
    torch_backend = TorchBackend(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
    expected, found = (log_softmax(one.forward(ids, None, 30)[0]) for one in (torch_backend, backend))
    assert 0 < (np.exp(expected) * (expected - found)).sum(-1).mean() < 0.1


def test_a_package_stops_where_its_template_ends_an_answer(tmp_path: Path) -> None:
    """As a base model that was given a chat template: its files know another end token."""
    model = merged(tmp_path / "merged", **FAMILIES["llama"] | {"eos_token_id": 0})
    end = 4
    write_json(model / "tokenizer_config.json", read_json(model / "tokenizer_config.json") | {"eos_token": PAD})
    write_json(model / "generation_config.json", {"eos_token_id": 0, "do_sample": True, "temperature": 2.0})
    settle_tokens(model, model, AutoTokenizer.from_pretrained(model))
    weights = load_file(model / "model.safetensors")
    # Whatever the text, the end of a turn is the likeliest token.
    for name, weight in weights.items():
        weight[:] = 0 if name.startswith(("model.layers", "lm_head")) and "norm" not in name else 1
    weights["lm_head.weight"][end] = 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    record(model, {}, [], [model / name for name in MODEL_FILES])
    package = tmp_path / "genai"
    backend = built(model, package, FP32)
    rows, ends = rows_of([12, 20]), set(read_json(model / "generation_config.json")["eos_token_id"])
    assert ends == {0, end}
    assert evaluate.stop_agreement(backend, rows, ends, 2) == {"stop_agreement": 1}
    said = subprocess.run(
        [sys.executable, shutil.copy(ROOT / "report/run.py", package), "Where does it end?"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (said.stdout, said.stderr) == ("\n", "")
    settings = read_json(package / "genai_config.json")
    settings["model"]["eos_token_id"] = 0
    write_json(package / "genai_config.json", settings)
    unended = type(backend)(package / "model.onnx", 1)
    assert evaluate.stop_agreement(unended, rows, ends, 2) == {"stop_agreement": 0}


def test_a_package_says_how_long_its_threads_spin(tmp_path: Path) -> None:
    model = merged(tmp_path / "merged", **FAMILIES["phi3"])
    for name, options in (("own", INT4), ("short", {**INT4, "spin_microseconds": 50})):
        logits = built(model, tmp_path / name, options).forward(np.array([[70, 71, 72]]), None, 3)[0]
        assert np.isfinite(logits).all()
    own, short = (json.loads((tmp_path / name / "genai_config.json").read_text()) for name in ("own", "short"))
    assert short["model"]["decoder"]["session_options"].pop("session.intra_op.spin_duration_us") == "50"
    assert own == short


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    model = merged(tmp_path / "merged", **FAMILIES["phi3"])
    outs = [tmp_path / "one", tmp_path / "deeper/two"]
    for out in outs:
        assert build(model, out, INT4).returncode == 0
    for name in (*GENAI_FILES, "manifest.json"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
    # At another commit of this repository they would be others if the graph named it.
    assert not re.search(rb"\d\+[0-9a-f]{7}", (outs[0] / "model.onnx").read_bytes())


@pytest.mark.parametrize(
    ("config", "template", "options", "words"),
    [
        ({"model_type": "gpt_neox"}, CHAT_TEMPLATE, INT4, "can't build `architectures` GPTNeoXForCausalLM at int4"),
        (FAMILIES["phi3"], None, INT4, "tokenizer_config.json: no `chat_template`"),
        ({"model_type": "llama", "head_dim": 8}, CHAT_TEMPLATE, INT4, "head_size shall be a multiple of 16"),
        ({"model_type": "llama", "head_dim": 24}, CHAT_TEMPLATE, FP32, "head_size shall be a multiple of 16"),
        (FAMILIES["phi3"], CHAT_TEMPLATE, MIXED, "can't build `architectures` Phi3ForCausalLM at int4"),
    ],
    ids=["an unknown architecture", "no chat template", "heads of 8", "heads of 24", "a graph that can't be loaded"],
)
def test_what_cant_be_built_is_told_in_one_line(
    tmp_path: Path, config: dict[str, Any], template: str | None, options: dict[str, Any], words: str
) -> None:
    # With a seed no fork server runs it: in a fork the runtime prints lines of its own.
    failed = build(merged(tmp_path / "merged", template, **config), tmp_path / "out", options, seed="1")
    assert failed.returncode == 1
    [line] = failed.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("task", ["classification", "generation", "language-modeling"])
def test_a_package_is_evaluated_without_torch(tmp_path: Path, task: str) -> None:
    built(merged(tmp_path / "merged", **FAMILIES["phi3"]), tmp_path / "genai", INT4)
    rows, tokens = rows_of([12, 20, 31]), tmp_path / "tokens"
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    kept = [{"id": str(n), "reference": "a", "messages": messages} for n in range(len(rows))]
    if task == "language-modeling":
        kept = [{"id": str(n), "text": "a"} for n in range(len(rows))]
        rows = Rows(rows.ids, [np.arange(len(ids)) > 0 for ids in rows.ids])
    write_rows(tokens / "test.safetensors", rows)
    (tokens / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    write_json(tokens / "decoding.json", {"candidates": {"a": [69, 4], "b": [70, 4]}, "end": [4], "training": []})
    record(tokens, {}, [], [tokens / name for name in ("test.safetensors", "test.jsonl", "decoding.json")])
    recipe = {"task": task, "max_new_tokens": 6, "truncated": 1, "gate": "warn", "threads": 1}
    recipe |= {"speed_prompts": 2, "speed_tokens": 3, "probe": {"rows": 3, "positions": 4}}
    code = "import sys; sys.modules['torch'] = None; sys.path.insert(0, 'scripts'); import evaluate; evaluate.main()"
    places = ["--model", tmp_path / "genai/model.onnx", "--prefix", "--tokens-directory", tokens]
    figures = tmp_path / "evaluation/genai-int4.json"
    command = [sys.executable, "-c", code, "--recipe", json.dumps(recipe), *places, "--output", figures]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(figures.read_text())["n"] == 3
