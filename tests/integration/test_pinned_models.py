"""A model of the hub, from its address to the same plan before and after it is fetched."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from support.random_models import FAMILIES, WITHOUT_GENAI, on_the_hub
from support.services.model_hub import COMMIT, model_hub
from transformers import AutoModelForCausalLM

import fetch_model
from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.config.model import Model
from snaketune.config.technique import Technique
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_yaml, write_json
from snaketune.core.layout import MODEL_FILES
from snaketune.dag.estimates import training_memory
from snaketune.dag.shape import Shape

ROOT = Path(__file__).parents[2]
HUB, PINNED = "owner/Name-1B", Path("config/models/name-1b.yaml")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose files a hub has as the model owner/Name-1B; the working directory is beside it."""
    directory = tmp_path / "hub"
    monkeypatch.chdir(tmp_path)
    with model_hub(HUB, directory) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield directory


def called(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    runpy.run_path(str(ROOT / program), run_name="__main__")


def pinned(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Model:
    called(monkeypatch, "tools/pin.py", HUB, *arguments)
    return Model.model_validate(read_yaml(PINNED))


@pytest.mark.parametrize(
    "family",
    [
        "phi3",
        "phi3, part of each head",
        "llama",
        "llama, scaled rope",
        "qwen3",
        "smollm3",
        "gemma3",
        "mistral, no window",
    ],
)
def test_a_pinned_model_plans_before_it_is_fetched_as_it_does_then(
    family: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_hub(hub, **(FAMILIES | WITHOUT_GENAI)[family])
    read = fetch_model.read_configuration(hub, hub.parent)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(read).save_pretrained("made")
    Path("made/model.safetensors").rename(hub / "model.safetensors")
    model = pinned(monkeypatch)
    assert (model.hub, model.revision, model.licence) == (HUB, COMMIT, "mit")
    assert model.config is not None
    recipe = {"hub": HUB, "revision": COMMIT, "path": None, "source_digests": {}}
    declared = {"model_type": model.model_type, **model.sizes}
    for config in (declared, {**declared, "hidden_size": 65}, {**declared, "model_type": "falcon"}):
        monkeypatch.setattr(
            sys, "argv", ["fetch", "--recipe", json.dumps({**recipe, "config": config}), "--output-directory", "base"]
        )
        if config == declared:
            fetch_model.main()
        else:
            with pytest.raises(UserError, match=r"config\.\w+ is .* in the model's file of config/models/, but"):
                fetch_model.main()
    assert all((Path("base") / name).exists() for name in MODEL_FILES)
    planned, fetched = (Shape.of(found) for found in (model.sizes, read_json(Path("base/config.json"))))
    assert planned == Shape(**{**vars(fetched), "head": planned.head})
    assert (planned.queries, planned.keys) == (fetched.queries, fetched.keys)
    lora = Technique.model_validate(read_yaml(ROOT / "config/techniques/lora.yaml")).recipe(model.model_type)
    needs = [training_memory({**lora, "batch_rows": 16}, shape, 64) for shape in (planned, fetched)]
    assert needs[0] == needs[1]
    made = AutoModelForCausalLM.from_pretrained("base")
    assert set(LINEAR_LAYERS[model.model_type]) <= {name.rpartition(".")[2] for name, _ in made.named_modules()}
    assert planned.parameters == pytest.approx(made.num_parameters(), rel=0.02)


def test_a_pinned_model_keeps_its_words_and_another_keeps_its_file(
    hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_hub(hub, **FAMILIES["llama"])
    first = pinned(monkeypatch)
    old = PINNED.read_text()
    ours = old.replace("description:", "# Ours.\n\ndescription:").replace("licence: mit", "licence: Our own")
    PINNED.write_text(ours.replace(COMMIT, "0" * 40).replace("64", "65"))
    assert pinned(monkeypatch) == first.model_copy(update={"licence": "Our own"})
    assert PINNED.read_text() == ours
    for content, told in (
        (old.replace(f"hub: {HUB}", "hub: other/Name-1B"), f"error: {PINNED} is another model: choose a name"),
        (None, "error: the hub has no model owner/Name-2B"),
    ):
        if content:
            PINNED.write_text(content)
        with pytest.raises(SystemExit, match="1"):
            called(monkeypatch, "tools/pin.py", HUB if content else "owner/Name-2B")
        assert told in capsys.readouterr().err
    assert sorted(path.name for path in PINNED.parent.iterdir()) == [PINNED.name]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, "this model is already quantized"),
        ({"model_type": "mine"}, "transformers 5"),
        ({"model_type": "vit", "hidden_size": None}, "config.json"),
    ],
)
def test_what_cant_be_trained_isnt_pinned(
    config: dict[str, object],
    told: str,
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_the_hub(hub, **FAMILIES["llama"])
    write_json(hub / "config.json", {**read_json(hub / "config.json"), **config})
    with pytest.raises(SystemExit, match="1"):
        pinned(monkeypatch)
    assert told in capsys.readouterr().err
    assert not PINNED.exists()
