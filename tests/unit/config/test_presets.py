"""The models of config/models/ plan with what they say of themselves, before anything is downloaded."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.config.model import Model
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml

ROOT = Path(__file__).parents[3]
# Parameters as the models' cards and safetensors say; a plan leaves out the norms of queries and keys.
PUBLISHED = {
    "gemma-3-1b-it": 999_885_952, "gemma-3-270m-it": 268_098_176, "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.2-3b-instruct": 3_212_749_824, "mistral-7b-instruct-v0.3": 7_248_023_552, "phi-4": 14_659_507_200,
    "phi-3-mini-4k-instruct": 3_821_079_552, "phi-3.5-mini-instruct": 3_821_079_552, "phi-4-mini-instruct": 3_836_021_760,
    "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976, "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360,
    "smollm2-1.7b-instruct": 1_711_376_384, "smollm2-135m-instruct": 134_515_008, "smollm2-135m-instruct-hub": 134_515_008,
    "smollm2-360m-instruct": 361_821_120, "smollm3-3b": 3_075_098_624,
}  # fmt: skip
# In a process of its own, as other tests have imported torch. A row for each model and technique.
PLAN = """
import json, socket, sys
from pathlib import Path
from types import SimpleNamespace
from snakemake.iocontainers import Wildcards
from snaketune.core.files import read_yaml
from snaketune.dag.recipes import Recipes
from snaketune.dag.known_sizes import KnownSizes
from snaketune.dag.resources import JobResources

def refused(*_): raise OSError("a plan asks nobody")
socket.socket.connect = refused
root, names = Path(sys.argv[1]), sys.argv[2:]
techniques = ["full", "lora", "qlora"]
matrix = Recipes(read_yaml(root / "config/config.yaml") | {"models": names, "techniques": techniques}, root)
found = {}
for name in names:
    for technique in techniques:
        one = Wildcards(fromdict={"model": name, "scenario": "classification", "technique": technique, "seed": "1"})
        rule = "train_all_weights" if technique == "full" else "train_adapter"
        asked = {"parameters": KnownSizes(matrix).shape(name).parameters}
        for where, workflow in (("cpu", None), ("gpu", SimpleNamespace(global_resources={"gpu": SimpleNamespace(value=1)}))):
            needs = JobResources(matrix, workflow)
            needs._nodes = lambda *_, **given: 1
            asked[where] = needs.training_memory(one, [], 1, 1, rule)
        asked |= {"of a gpu": needs.gpu_bytes(rule, one) / 1e6, "fetched": needs.disk_bytes("fetch_model", one)[0]}
        found[f"{name} {technique}"] = asked
assert "torch" not in sys.modules and "transformers" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def plans() -> dict[str, dict[str, float]]:
    command = [sys.executable, "-c", PLAN, str(ROOT), *PUBLISHED]
    found = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    plans: dict[str, dict[str, float]] = json.loads(found.stdout)
    return plans


def presets() -> dict[str, Model]:
    models = {path.stem: Model.model_validate(read_yaml(path)) for path in (ROOT / "config/models").glob("*.yaml")}
    return {name: model for name, model in models.items() if model.hub or model.gguf}


def test_every_preset_is_listed_here() -> None:
    assert presets().keys() == PUBLISHED.keys()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": "wide"}, "config.hidden_size: Input should be a valid integer"),
        ({"num_attention_heads": 0}, "config.num_attention_heads: Input should be greater than 0 (found 0)"),
        ({"vocab_size": None}, "config.vocab_size: Input should be a valid integer"),
        ({"hidden_sizes": 64}, "config.hidden_sizes: unknown key; did you mean hidden_size?"),
    ],
)
def test_wrong_sizes_are_said_by_key(change: dict[str, Any], told: str) -> None:
    content = read_yaml(ROOT / "config/models/qwen3-8b.yaml")
    with pytest.raises(UserError, match=re.escape(told)):
        validated(Model, {**content, "config": {**content["config"], **change}}, "qwen3-8b.yaml")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_plans_with_its_memory_and_disk(name: str, plans: dict[str, dict[str, float]]) -> None:
    model = presets()[name]
    assert model.config is not None
    assert model.model_type in LINEAR_LAYERS
    full, lora, qlora = (plans[f"{name} {technique}"] for technique in ("full", "lora", "qlora"))
    assert lora["parameters"] == pytest.approx(PUBLISHED[name], rel=2e-4)
    gigabytes = 4 * lora["parameters"] / 1e9
    assert lora["fetched"] / 1e9 == pytest.approx(gigabytes)
    # Of a 4-bit base, the file in fp32 is mapped too.
    assert min(lora["cpu"], qlora["cpu"]) > 1000 * gigabytes
    assert full["cpu"] > 4000 * gigabytes
    # On a GPU, the host holds the weights while they are loaded, and the GPU all that is trained.
    assert {one["gpu"] for one in (full, lora, qlora)} == {lora["gpu"]}
    assert 1000 * gigabytes < lora["gpu"] < 1000 * gigabytes + 5000
    assert lora["of a gpu"] > qlora["of a gpu"]
    assert full["of a gpu"] > 4000 * gigabytes


@pytest.mark.parametrize(
    "name",
    [
        "phi-4-mini-instruct",
        "qwen3-0.6b",
        "smollm2-360m-instruct",
        "smollm3-3b",
        "gemma-3-270m-it",
        "mistral-7b-instruct-v0.3",
    ],
)
def test_transformers_has_the_sizes_and_layers_of_a_preset(name: str) -> None:
    """Of each family: one block of the model as transformers makes it holds the weights that a plan counts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from snaketune.dag.shape import Shape

    model = presets()[name]
    declared: dict[str, Any] = {**model.sizes, "num_hidden_layers": 1}
    config = AutoConfig.for_model(model.model_type, **declared)
    assert {key: getattr(config, key) for key in declared} == declared
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)
    linear = {n.rpartition(".")[2]: one for n, one in made.model.named_modules() if isinstance(one, torch.nn.Linear)}
    shape = Shape.of(declared)
    assert set(linear) == set(LINEAR_LAYERS[model.model_type])
    assert sum(one.weight.numel() for one in linear.values()) == shape.block
    assert {n: shape.linears[n] for n in linear} == {
        n: (one.in_features, one.out_features) for n, one in linear.items()
    }
    assert sum(one.numel() for one in made.parameters()) == pytest.approx(shape.parameters, rel=1e-4)
