"""Every quantization method on a real export of a tiny model, and what a power-of-two export claims."""

import itertools
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

from snaketune.config.export import Auto, Export, LossBudget, WeightOnlyInt4
from snaketune.core import manifest
from snaketune.core.layout import MODEL_FILES, ONNX_FILES
from snaketune.data.tokens import Rows, write_rows
from snaketune.export import power_of_two
from snaketune.inference.decoding import log_softmax
from snaketune.inference.onnx_backend import OnnxBackend
from snaketune.inference.probe import probe_logits

ROOT = Path(__file__).parents[2]
NAMES = [
    "fp16",
    "int8",
    "int8-block",
    "int8-qdq",
    "int8-qdq-pow2",
    "int4",
    "int4-hqq",
    "int4-gptq",
    "int4-k-quant",
    "nf4",
]
# How near to fp32 a model comes whose down_proj has an outlier among its inputs.
OUTLIERS: dict[str, dict[str, Any]] = {"int8": {}, "int8-block": {}, "int8, one scale": {"outliers_in_blocks": False}}
DRAWN = np.random.default_rng(1)
ROWS = [DRAWN.integers(3, 64, 12).astype(np.int32) for _ in range(8)]
# Of the fp32 bytes, where norms, scales and odd sizes weigh more than in a real model.
SHARES = {
    "fp16": 0.52,
    "int8": 0.28,
    "int8-block": 0.28,
    "int8-qdq": 0.28,
    "int8-qdq-pow2": 0.28,
    "int4": 0.17,
    "nf4": 0.3,
}


def kl(most: float) -> dict[str, float]:
    return {"kl_divergence": most}


# From a budget that 4 bits meet to one that only fp32 does.
AUTO: dict[str, dict[str, Any]] = {
    "auto-wide": {"budget": kl(1.0), "algorithm": "rtn"},
    "auto-some": {"budget": kl(0.01)},
    "auto-narrow": {"budget": kl(2e-3)},
    "auto-fp32": {"budget": kl(1e-9), "bits": [8, 32]},
    "auto-answers": {"budget": {"lost_answers": 0.7}, "bits": [4], "algorithm": "hqq", "accuracy_level": 0},
}


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
        self.root, self.tokens, self.answered = root, root / "training", root / "answered"

    def argv(self, out: str, recipe: dict[str, Any], source: str = "fp32", tokens: Path | None = None) -> list[str]:
        given = ["--calibration-directory", str(tokens)] if tokens else ["--calibration-directory"]
        paths = ["--model", self.root / source / "model.onnx", "--output-directory", self.root / out]
        return ["--recipe", json.dumps(recipe), *map(str, paths), *given]

    def logits(self, name: str) -> np.ndarray:
        return probe_logits(OnnxBackend(self.root / name / "model.onnx", 1), ROWS, 6)

    def right_answers(self) -> list[np.ndarray]:
        """Return the rows, each with the last three tokens that fp32 finds likeliest."""
        backend, rows = OnnxBackend(self.root / "fp32/model.onnx", 1), np.array(ROWS)
        for row, n in itertools.product(rows, range(9, rows.shape[1])):
            row[n] = backend.forward(row[None, :n].astype(np.int64), None, 1)[0][0, -1].argmax()
        return list(rows)

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
    validation = Rows(ROWS * 2, [np.arange(len(row)) > 8 for row in ROWS * 2])
    write_rows(place.tokens / "validation.safetensors", validation)
    manifest.record(place.tokens, {}, [], [place.tokens / f"{split}.safetensors" for split in ("train", "validation")])
    write_rows(place.answered / "train.safetensors", Rows(ROWS, [np.ones(len(row), bool) for row in ROWS]))
    write_rows(place.answered / "validation.safetensors", Rows(place.right_answers(), validation.answers[: len(ROWS)]))
    manifest.record(place.answered, {}, [], sorted(place.answered.iterdir()))
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
    few = place.root / "few"
    few.mkdir()
    for split in ("train", "validation"):
        write_rows(few / f"{split}.safetensors", Rows(ROWS[:3], [np.ones(len(row), bool) for row in ROWS[:3]]))
    manifest.record(few, {}, [], [few / f"{split}.safetensors" for split in ("train", "validation")])
    for name, options in AUTO.items():
        tokens = place.answered if "lost_answers" in options["budget"] else place.tokens
        runs[name] = place.argv(name, recipe_of("auto", **options), tokens=tokens)
    runs["no answers"] = place.argv("no-answers", recipe_of("auto", **AUTO["auto-answers"]), tokens=place.tokens)
    runs["over budget"] = place.argv("over-budget", recipe_of("auto", budget=kl(1e-9)), tokens=place.tokens)
    runs["few rows"] = place.argv("few-rows", recipe_of("auto"), tokens=few)
    for name, options in OUTLIERS.items():
        precision = name.partition(",")[0]
        runs[f"outliers/{name}"] = place.argv(
            f"outliers/{name}", recipe_of(precision, **options), source="outliers/fp32"
        )
    asked = {
        "runs": runs,
        "outliers": str(place.root / "outliers/fp32"),
        "gemms": [str(place.root / "fp32"), str(place.root / "gemms")],
        "layers": [str(place.root / "int8-qdq-pow2/model.onnx"), str(place.tokens)],
    }
    said = in_export("tests/support/quantizing.py", given=json.dumps(asked))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def divergence(place: Place, name: str, source: str = "fp32") -> float:
    parent, child = log_softmax(place.logits(source)), log_softmax(place.logits(name))
    return float((np.exp(parent) * (parent - child)).sum(-1).mean())


def test_an_outlier_costs_its_own_block_only(place: Place, told: dict[str, Any]) -> None:
    assert [told["runs"][f"outliers/{name}"][0] for name in OUTLIERS] == [0, 0, 0]
    blocks, int8_block, tensor = (divergence(place, f"outliers/{name}", "outliers/fp32") for name in OUTLIERS)
    # Of two blocks, one is lost.
    assert tensor > 2 * max(blocks, int8_block)


@pytest.mark.parametrize("name", NAMES)
def test_a_quantized_model_is_near_its_parent_and_proven(name: str, place: Place, told: dict[str, Any]) -> None:
    assert told["runs"][name][0] == 0, told["runs"][name]
    assert 0 < divergence(place, name) < (1e-5 if name == "fp16" else 0.01 if name.startswith("int8") else 0.05)
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
        (
            "over budget",
            ["no choice of bits is within the budget of kl_divergence 1e-09: the smallest loss is", "down 8"],
        ),
        ("no answers", ["lost_answers: fp32 gets 0 of 16 validation rows right", "give kl_divergence"]),
        ("few rows", ["validation.safetensors: 3 rows with an answer", "at least 8", "provide more validation rows"]),
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


def test_auto_is_the_smallest_within_its_budget(place: Place, told: dict[str, Any]) -> None:
    sizes = []
    for name, options in AUTO.items():
        assert told["runs"][name][0] == 0, told["runs"][name]
        chosen = manifest.read(place.root / name / "manifest.json")["recipe"]["chosen"]
        [(loss, most)] = options["budget"].items()
        assert chosen["proven"][loss]["mean"] <= chosen["proven"][loss]["upper"] <= most
        assert (
            set(chosen["bits"]) == set(chosen["sensitivity"]) == {"table_and_head", "attention", "gate_and_up", "down"}
        )
        sizes.append((place.root / name / "model.onnx_data").stat().st_size)
        parent, child = log_softmax(place.logits("fp32")), log_softmax(place.logits(name))
        assert (np.exp(parent) * (parent - child)).sum(-1).mean() < 0.1
    assert sizes[:4] == sorted(sizes[:4])
    bits = [
        set(manifest.read(place.root / name / "manifest.json")["recipe"]["chosen"]["bits"].values()) for name in AUTO
    ]
    assert bits[0] == {4}
    assert bits[1] | bits[2] == {4, 8}
    assert bits[3:] == [{32}, {4}]


def test_more_bits_of_a_kind_lose_less(place: Place, told: dict[str, Any]) -> None:
    sensitivity = manifest.read(place.root / "auto-some/manifest.json")["recipe"]["chosen"]["sensitivity"]
    for of in sensitivity.values():
        assert 0 < of["8"]["kl_divergence"]["mean"] < of["4"]["kl_divergence"]["mean"]


def test_two_runs_give_the_same_bytes(place: Place, told: dict[str, Any]) -> None:
    names = ["int8-qdq", "int8-qdq-pow2", "int4-gptq", "fp16"]
    runs = {name: place.argv(f"again/{name}", recipe_of(name), tokens=place.tokens) for name in names}
    runs["auto-some"] = place.argv("again/auto-some", recipe_of("auto", **AUTO["auto-some"]), tokens=place.tokens)
    in_export("tests/support/quantizing.py", given=json.dumps({"runs": runs}), seed="2")
    chosen = [manifest.read(place.root / one / "auto-some/manifest.json")["recipe"] for one in (".", "again")]
    assert chosen[0] == chosen[1]
    for name in [*names, "auto-some"]:
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
    for kind in (WeightOnlyInt4, Auto):
        with pytest.raises(ValidationError, match=expected):
            kind(**{"symmetric": True, "accuracy_level": 4} | options)


@pytest.mark.parametrize("budget", [{}, {"kl_divergence": 0.1, "lost_answers": 0.1}])
def test_a_budget_is_of_one_loss(budget: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="give either kl_divergence or lost_answers"):
        LossBudget(**budget)
