"""A download asks for the pinned revision and for no format that runs code."""

import ast
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import fetch_model
from fetch_model import copy_weights
from snaketune.core import errors
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json
from snaketune.core.layout import MODEL_FILES
from snaketune.core.quantized import refuse_quantized

SCRIPTS = Path(__file__).parents[3] / "scripts"
REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"code",
    "modeling_mine.py": b"code",
    "README.md": b"words",
}
# The waits between the hub client's retries are left out, and nothing else.
PROGRAM = """
import sys, time
from pathlib import Path
time.sleep = lambda seconds: None
from snaketune.core import errors
from snaketune.data.hub_download import download
hub, revision = sys.argv[1:]
errors.run(lambda: print(*sorted(path.name for path in download(hub, revision).iterdir())))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one model at one revision, as the hub does, and notes what is asked for."""

    requested: list[str]
    agents: set[str]
    status = 200
    breaks_off = False

    def do_HEAD(self) -> None:
        self.requested.append(self.path)
        self.agents.add(self.headers["User-Agent"])
        name = self.path.rsplit("/", 1)[-1]
        if self.status != 200:
            body = b"{}"
        elif "/tree/" in self.path:
            files = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": 40 * "0"} for name in FILES]
            body = json.dumps(files).encode()
        else:
            body = FILES.get(name, b"{}")
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        if self.status == 404:
            self.send_header("X-Error-Code", "RevisionNotFound")
        self.end_headers()
        if self.command == "GET":
            cut = self.breaks_off and name == "model.safetensors"
            self.wfile.write(body[:3] if cut else body)

    do_GET = do_HEAD

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[http.server.HTTPServer]:
    handler = type("OneHub", (Hub,), {"requested": [], "agents": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def download(
    home: Path, port: int, name: str = "owner/name", program: str = PROGRAM, **environment: str
) -> subprocess.CompletedProcess[str]:
    others = re.compile("(HF_|DO_NOT_TRACK).*|.*_(proxy|PROXY)")
    kept = {key: value for key, value in os.environ.items() if not others.fullmatch(key)}
    own = {"PYTHONPATH": str(SCRIPTS), "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home)}
    command = [sys.executable, "-c", program, name, REVISION]
    return subprocess.run(command, env=kept | own | environment, capture_output=True, text=True, check=False)


def test_only_the_pinned_revision_and_no_code_is_asked_for_and_nothing_told(
    hub: http.server.HTTPServer, tmp_path: Path
) -> None:
    found = download(tmp_path, hub.server_port)
    assert found.stdout.split() == ["config.json", "model.safetensors", "tokenizer.json"], found.stderr
    about_the_model = [path for path in hub.RequestHandlerClass.requested if "owner/name" in path]
    assert len(about_the_model) > 3
    assert [path for path in about_the_model if REVISION not in path] == []
    assert [path for path in about_the_model if path.endswith((".bin", ".py", ".md"))] == []
    (agent,) = hub.RequestHandlerClass.agents
    assert re.fullmatch(r"unknown/None; hf_hub/[\d.]+; python/[\d.]+", agent)


def test_a_dataset_s_download_neither_names_libraries_nor_is_counted(
    hub: http.server.HTTPServer, tmp_path: Path
) -> None:
    program = f"""
import sys, time
time.sleep = lambda seconds: None
from snaketune.data.read_hub import hub_rows
list(hub_rows({{"hub": "owner/name", "revision": {REVISION!r}, "configuration": None, "splits": {{"train": "train"}}}}))
"""
    found = download(tmp_path, hub.server_port, program=program)
    assert "UserError: source.hub: owner/name" in found.stderr
    agents = hub.RequestHandlerClass.agents
    assert agents and not [agent for agent in agents if re.search(r"torch|; agent/", agent)]
    assert [path for path in hub.RequestHandlerClass.requested if REVISION not in path] == []


HUB_USERS = {"accelerate", "datasets", "huggingface_hub", "optimum", "peft", "transformers", "onnxruntime_genai"}


def imported_first(path: Path) -> Iterator[str]:
    """The packages that a program imports at its top, in order."""
    for node in ast.parse(path.read_text()).body:
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.split(".")[0] for name in names)
        # Programs of the export environment set the switch themselves.
        if isinstance(node, ast.Expr) and "HF_HUB_DISABLE_TELEMETRY" in ast.unparse(node):
            yield "snaketune"


def test_every_program_turns_telemetry_off_before_a_library_reads_its_switch() -> None:
    programs = [*SCRIPTS.glob("*.py"), *SCRIPTS.parent.glob("tools/*.py"), *SCRIPTS.parent.glob("benchmarks/*.py")]
    order = {path.name: list(imported_first(path)) for path in programs}
    using = {name: found for name, found in order.items() if HUB_USERS & set(found)}
    assert {"fetch_model.py", "train.py", "export_onnx.py"} <= using.keys()
    late = [name for name, found in using.items() if HUB_USERS & {*found[: [*found, "snaketune"].index("snaketune")]}]
    assert late == []


@pytest.mark.parametrize(
    ("hub_does", "asked", "words", "passing"),
    [
        ({"status": 404}, {}, f"owner/name has no revision {REVISION}", False),
        ({"status": 401}, {}, "owner/name", False),
        ({"status": 503}, {}, "owner/name", True),
        ({"breaks_off": True}, {}, "owner/name at 0123456789ab can't be downloaded", True),
        ({}, {"HF_ENDPOINT": "http://127.0.0.1:1"}, "check the network, or HF_ENDPOINT for a mirror", True),
        ({}, {"HF_HUB_OFFLINE": "1"}, "owner/name at 0123456789ab can't be downloaded", True),
        ({}, {"name": "owner/na/me"}, "owner/na/me", False),
        ({}, {"HF_HOME": "/dev/null/a"}, "/dev/null/a/hub: can't be written to (Not a directory), and down", False),
    ],
)
def test_a_download_that_fails_is_one_clear_line(
    hub: Any, tmp_path: Path, hub_does: dict[str, Any], asked: dict[str, str], words: str, passing: bool
) -> None:
    for name, value in hub_does.items():
        setattr(hub.RequestHandlerClass, name, value)
    found = download(tmp_path, hub.server_port, **asked)
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    last = found.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert errors.is_users_mistake(found.stderr) == (not passing)


def test_the_weights_of_one_file_are_copied_and_no_other_format(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"code")
    with pytest.raises(UserError, match=r"no \.safetensors file; other formats .* aren't accepted"):
        copy_weights(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    save_file({"weight": np.arange(3.0)}, tmp_path / "some-name.safetensors")
    copy_weights(tmp_path, tmp_path / "out")
    np.testing.assert_array_equal(load_file(tmp_path / "out/model.safetensors")["weight"], [0, 1, 2])


def test_the_weights_of_the_indexed_shards_become_one_file_and_a_missing_one_is_named(tmp_path: Path) -> None:
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    save_file({"a": np.arange(2.0)}, tmp_path / shards["a"])
    save_file({"foreign": np.arange(4.0)}, tmp_path / "consolidated.safetensors")
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": shards})
    with pytest.raises(UserError, match=r"names model-2\.safetensors, which isn't there"):
        copy_weights(tmp_path, tmp_path / "out")
    save_file({"b": np.arange(3.0)}, tmp_path / shards["b"])
    copy_weights(tmp_path, tmp_path / "out")
    assert sorted(load_file(tmp_path / "out/model.safetensors")) == ["a", "b"]


TOKENS = ["<eos>", "<pad>", "<user>", "<answer>", "<end>", "<return>", *"\n:?abcdefghijklmnopqrstuvwxyz"]
ASKS = "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% else %}"
GOES_ON = "{% endif %}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
TEMPLATES = {
    "one end of every turn": (f"{ASKS}<answer>{{{{ m.content }}}}<end>\n{GOES_ON}", ["<end>"]),
    "another at the end of the conversation": (
        f"{ASKS}<answer>{{{{ m.content }}}}{{{{ '<return>' if loop.last else '<end>' }}}}{GOES_ON}",
        ["<return>", "<end>"],
    ),
    "two at the end of the conversation": (
        f"{ASKS}<answer>{{{{ m.content }}}}<end>{{{{ '<return>' if loop.last }}}}{GOES_ON}",
        ["<end>"],
    ),
    "the next question": (f"{ASKS}<answer>{{{{ m.content }}}}{GOES_ON}", ["<user>"]),
    "words alone": ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}", []),
    "a template that refuses": ("{{ raise_exception('no') }}", []),
}


Fetch = Callable[..., Path]


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetch:
    """Make base/ of a local model as the hub has it: configuration and tokenizer are real, the weights aren't."""

    def fetched(template: Any = "", generation: Any = None, **config: object) -> Path:
        source, out = tmp_path / "model", tmp_path / "base"
        source.mkdir()
        tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(TOKENS)}, "?"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        tokenizer.add_special_tokens(TOKENS[:6])
        tokenizer.save(str(source / "tokenizer.json"))
        special = {"eos_token": "<eos>", "pad_token": "<pad>", "chat_template": template}
        write_json(source / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})
        sizes = {"vocab_size": len(TOKENS), "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
        write_json(source / "config.json", {"model_type": "llama", **sizes, **config})
        if generation:
            write_json(source / "generation_config.json", generation)
        save_file({"lm_head.weight": np.zeros((2, 2))}, source / "model.safetensors")
        recipe = json.dumps({"hub": None, "revision": None, "path": str(source), "source_digests": {}})
        monkeypatch.setattr(sys, "argv", ["fetch_model", "--recipe", recipe, "--output-directory", str(out)])
        fetch_model.main()
        return out

    return fetched


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_tokens_are_those_of_files_tokenizer_and_template(fetch: Fetch, name: str) -> None:
    template, ends = TEMPLATES[name]
    base = fetch(template, generation={"eos_token_id": [1], "temperature": 0.6})
    found = read_json(base / "generation_config.json")
    assert [TOKENS[token] for token in found["eos_token_id"]] == ["<pad>", "<eos>", *ends]
    assert found["temperature"] == 0.6


def test_a_configuration_of_transformers_4_is_saved_as_of_5(fetch: Fetch) -> None:
    old = {"rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "bfloat16", "auto_map": {"AutoConfig": "mine.Mine"}}
    config = read_json(fetch(eos_token_id=[2, 999], pad_token_id=-1, bos_token_id=-1, **old) / "config.json")
    assert config["rope_parameters"] == {"rope_theta": 500000.0, "rope_type": "default"}
    assert config["dtype"] == "bfloat16"
    assert not old.keys() & config.keys()
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (1, None, [2])


def test_an_architecture_that_transformers_lacks_is_one_message(fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: transformers 5.* can't read it .*without code of its own"):
        fetch(model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    assert not (tmp_path / "base/model.safetensors").exists()


@pytest.mark.parametrize(
    ("config", "weight", "kind", "told"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "q.weight", "float32", "bitsandbytes"),
        ({"quantization_config": {"quant_algo": "NVFP4"}}, "q.weight", "float32", "NVFP4"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "q.weight", "float32", "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "hqq"}}}, "q.weight", "float32", "hqq"),
        ({}, "q.weight", "uint8", "q.weight has the type U8"),
        ({}, "q.weight", "int8", "q.weight has the type I8"),
        ({}, "q.qweight", "int32", "q.qweight has the type I32"),
    ],
)
def test_a_quantized_model_is_refused(
    tmp_path: Path, config: dict[str, Any], weight: str, kind: str, told: str
) -> None:
    write_json(tmp_path / "config.json", {})
    weights = {"q_proj.bias": np.zeros(2), "mask": np.zeros(2, np.uint8)}
    save_file(weights, tmp_path / "model.safetensors")
    refuse_quantized(tmp_path)
    write_json(tmp_path / "config.json", config)
    save_file({**weights, weight: np.zeros((2, 2), kind)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"config\.json: this model is already quantized \({told}\)"):
        refuse_quantized(tmp_path)


def test_of_several_chat_templates_the_default_is_kept(fetch: Fetch) -> None:
    dated = "{{ strftime_now('%Y') }}"
    named = [{"name": "default", "template": dated}, {"name": "rag", "template": "rag"}]
    base = fetch(named)
    assert sorted(path.name for path in base.iterdir()) == sorted([*MODEL_FILES, "manifest.json", "provenance.json"])
    assert read_json(base / "tokenizer_config.json")["chat_template"] == '{{ "2024" }}'


def test_of_several_chat_templates_one_must_be_the_default(fetch: Fetch) -> None:
    with pytest.raises(UserError, match=r"tokenizer_config\.json: of its chat templates rag none is named default"):
        fetch([{"name": "rag", "template": "rag"}])
