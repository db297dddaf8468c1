"""Every quantization method on a real export of a tiny model, and what a power-of-two export claims."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from support import integers
from support.export_environment import in_export_environment
from support.models import tiny_phi3

from snaketune.config.export import Export, WeightOnlyInt4
from snaketune.core import manifest
from snaketune.core.layout import MODEL_FILES, ONNX_FILES
from snaketune.data.tokens import Rows, write_rows
from snaketune.export import power_of_two
from snaketune.inference.decoding import log_softmax, probe_logits
from snaketune.inference.onnx_backend import OnnxBackend

ROOT = Path(__file__).parents[2]
NAMES = ["fp16", "int8", "int8-block", "int8-qdq", "int8-qdq-pow2", "int4", "int4-hqq", "int4-gptq", "int4-k-quant"]
DRAWN = np.random.default_rng(1)
ROWS = [DRAWN.integers(3, 64, 12).astype(np.int32) for _ in range(8)]
# Of the fp32 bytes, where norms, scales and odd sizes weigh more than in a real model.
SHARES = {"fp16": 0.52, "int8": 0.28, "int8-block": 0.28, "int8-qdq": 0.28, "int8-qdq-pow2": 0.28, "int4": 0.17}


def in_export(*command: object, given: str = "", seed: str = "1") -> str:
    done = in_export_environment(*command, given=given, seed=seed)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def recipe_of(name: str, **options: Any) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / f"config/exports/{name}.yaml").read_text())
    content["options"] = content.get("options", {}) | options
    dumped: dict[str, Any] = Export.model_validate(content).model_dump(exclude={"description"})
    return dumped


class Place:
    def __init__(self, root: Path):
        self.root, self.tokens = root, root / "training"

    def argv(self, out: str, recipe: dict[str, Any], source: str = "fp32", tokens: Path | None = None) -> list[str]:
        given = ["--calibration-directory", str(tokens)] if tokens else ["--calibration-directory"]
        paths = ["--model", self.root / source / "model.onnx", "--output-directory", self.root / out]
        return ["--recipe", json.dumps(recipe), *map(str, paths), *given]

    def logits(self, name: str) -> np.ndarray:
        return probe_logits(OnnxBackend(self.root / name / "model.onnx", 1), ROWS, 6)

    def bytes(self, name: str) -> list[bytes]:
        return [(self.root / name / file).read_bytes() for file in ONNX_FILES[:2]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("quantize"))
    merged = place.root / "merged"
    model = tiny_phi3(64, tie_word_embeddings=True)
    for weight in model.parameters():
        weight.data *= 4 if weight.dim() > 1 else 1  # so that greedy tokens aren't decided by a hair
    model.save_pretrained(merged)
    for name in MODEL_FILES[3:]:
        (merged / name).write_text("{}")
    manifest.record(merged, {}, [], [merged / name for name in MODEL_FILES])
    paths = ["--model-directory", merged, "--output-directory", place.root / "fp32"]
    in_export("scripts/export_onnx.py", "--recipe", "{}", *paths)
    place.tokens.mkdir()
    write_rows(place.tokens / "train.safetensors", Rows(ROWS, [np.ones(len(row), bool) for row in ROWS]))
    manifest.record(place.tokens, {}, [], [place.tokens / "train.safetensors"])
    return place


@pytest.fixture(scope="module")
def told(place: Place) -> dict[str, Any]:
    """What happened to each run: all in one process, because it takes seconds to start."""
    cut = place.root / "cut"
    cut.mkdir()
    for path in (place.root / "fp32").iterdir():
        (cut / path.name).write_bytes(path.read_bytes())
    (cut / "model.onnx_data").write_bytes((cut / "model.onnx_data").read_bytes()[:-1])
    runs = {name: place.argv(name, recipe_of(name), tokens=place.tokens) for name in NAMES}
    runs["int4-k-quant"] = place.argv("int4-k-quant", recipe_of("int4-k-quant", block_size=16))
    runs["odd"] = place.argv("odd", recipe_of("int4-k-quant"))
    runs["no rows"] = place.argv("no-rows", recipe_of("int8-qdq"))
    runs["half written"] = place.argv("half-written", recipe_of("int8"), source="cut")
    runs["of gemms"] = place.argv("of-gemms", recipe_of("int8"), source="gemms")
    asked = {
        "runs": runs,
        "gemms": [str(place.root / "fp32"), str(place.root / "gemms")],
        "layers": [str(place.root / "int8-qdq-pow2/model.onnx"), str(place.tokens)],
    }
    said = in_export("tests/support/quantizing.py", given=json.dumps(asked))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_quantized_model_is_near_its_parent_and_proven(name: str, place: Place, told: dict[str, Any]) -> None:
    assert told["runs"][name][0] == 0, told["runs"][name]
    parent, child = log_softmax(place.logits("fp32")), log_softmax(place.logits(name))
    divergence = float((np.exp(parent) * (parent - child)).sum(-1).mean())
    assert divergence < (1e-5 if name == "fp16" else 0.01 if name.startswith("int8") else 0.05)
    assert divergence > 0
    manifest.prove(place.root / name / "manifest.json")
    inputs = set(manifest.read(place.root / name / "manifest.json")["inputs"])
    reads = name in ("int8-qdq", "int8-qdq-pow2", "int4-gptq")
    assert ((place.tokens / "manifest.json").as_posix() in inputs) == reads
    bytes_of = {one: (place.root / one / "model.onnx_data").stat().st_size for one in (name, "fp32")}
    assert bytes_of[name] < SHARES.get(name, 0.25) * bytes_of["fp32"]
    assert not list((place.root / name).glob(".*"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("odd", ["k-quant packs", "1 blocks of 32 in its 32 inputs", "choose a block_size"]),
        ("no rows", ["static-int8 needs training rows", "--calibration-directory"]),
        ("half written", ["model.onnx_data has changed since it was made", "run snakemake"]),
        ("of gemms", ["most weights of this model are read by Gemm", "choose fp32, fp16 or a genai precision"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name: str, expected: list[str], place: Place, told: dict[str, Any]
) -> None:
    code, said = told["runs"][name]
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(part in said for part in expected), said
    assert not list((place.root / name.replace(" ", "-")).glob("*"))


def test_two_runs_give_the_same_bytes(place: Place, told: dict[str, Any]) -> None:
    names = ["int8-qdq", "int8-qdq-pow2", "int4-gptq", "fp16"]
    runs = {name: place.argv(f"again/{name}", recipe_of(name), tokens=place.tokens) for name in names}
    in_export("tests/support/quantizing.py", given=json.dumps({"runs": runs}), seed="2")
    for name in names:
        assert place.bytes(name) == place.bytes(f"again/{name}")


def test_onnx_runtime_computes_linear_layers_as_integers_do(told: dict[str, Any]) -> None:
    found = told["layers"]
    assert found["layers"] == 2 * 4 + 1
    assert found["values"] > 1000
    assert 0 < found["accumulator"] < integers.EXACT
    assert found["different"] == dict.fromkeys(found["different"], 0)


def test_what_is_no_power_of_two_is_refused_by_name(told: dict[str, Any]) -> None:
    scale, zero, opset = told["refusals"]
    assert "scale of model.embed_tokens.weight_quantized is 0.3" in scale
    assert "zero point of model.embed_tokens.weight_quantized is int8 1" in zero
    assert "opset is [18], expected 17" in opset


def test_gptq_keeps_the_output_closer_than_rounding(told: dict[str, Any]) -> None:
    assert told["rounding"]["symmetric"] < 0.5
    assert told["rounding"]["asymmetric"] < 0.5


BYTES = st.integers(-128, 127)


@given(
    activation=arrays(np.int8, (3, 17), elements=BYTES),
    weight=arrays(np.int8, (17, 5), elements=BYTES),
    exponents=st.tuples(st.integers(-12, 3), st.integers(-12, 3), st.integers(-12, 3)),
)
def test_a_shift_rounds_half_to_even(
    activation: np.ndarray, weight: np.ndarray, exponents: tuple[int, int, int]
) -> None:
    product = activation.astype(np.float64) @ weight.astype(np.float64)
    one, two, three = exponents
    expected = np.clip(np.round(product * 2.0 ** (one + two - three)), -128, 127)
    np.testing.assert_array_equal(integers.linear(activation, weight, exponents), expected)


@given(st.floats(1e-30, 1e30))
def test_the_power_of_two_above(value: float) -> None:
    found = power_of_two.power_of_two_at_least(value)
    assert found / 2 < value <= found
    assert 2.0 ** integers.exponent_of(found) == found


def test_a_scale_that_is_no_power_of_two() -> None:
    assert power_of_two.power_of_two_at_least(0) == 1
    with pytest.raises(ValueError, match=r"0\.75 is no power of two"):
        integers.exponent_of(0.75)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"algorithm": "k-quant"}, "k-quant searches zero points: set symmetric: false"),
        ({"algorithm": "hqq"}, "hqq searches zero points: set symmetric: false"),
        ({"algorithm": "hqq", "symmetric": False}, "set accuracy_level: 0"),
    ],
)
def test_what_an_algorithm_cannot(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        WeightOnlyInt4(**options)
