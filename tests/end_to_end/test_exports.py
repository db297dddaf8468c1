"""Every precision of a run: built, compared with its parent, evaluated, timed, packaged."""

import subprocess

import pytest
import yaml
from support.experiments import LOSSY, SMALL, run_of
from support.workspace import Workspace, refusal_of

from snaketune.core.files import read_json
from snaketune.core.precisions import backend_of

pytestmark = pytest.mark.long

# Of each kind one; test_quantize.py has the other methods and options.
PRECISIONS = ["fp32", "fp16", "int8", "int8-qdq", "int4", "genai-fp32", "genai-int4"]
GENAI = {name for name in PRECISIONS if name.startswith("genai-")}
EXACT = {"fp32", "fp16", "genai-fp32"}
TARGETS = ("export_all", "package", "export_adapters")


@pytest.fixture(scope="module")
def exported(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of a finished run of LoRA, with further precisions, the benchmark and the packages."""
    other = finished.copied(tmp_path_factory.mktemp("exports") / "copy")
    budgets = {f"onnx-fp32-{name}": LOSSY for name in PRECISIONS if name not in EXACT}
    other.write(
        other.experiment,
        {
            **SMALL,
            "techniques": ["lora", "peft-prefix"],
            "precisions": PRECISIONS,
            "parity": {"budgets": budgets},
            "benchmark": {"prompt_lengths": [8], "batch_sizes": [1, 2], "new_tokens": 4, "rounds": 2},
        },
    )
    other.run(*TARGETS)
    return other


def test_every_hop_is_measured_with_its_intervals(exported: Workspace) -> None:
    hops = read_json(run_of(exported) / "parity.json")["hops"]
    children = {f"onnx-fp32-{name}" for name in PRECISIONS if name != "fp32"}
    assert hops.keys() == {"adapter-merged", "merged-onnx-fp32"} | children
    for name, hop in hops.items():
        low, high = hop["kl_divergence_ci"]
        assert low <= hop["kl_divergence"] <= high
        if name != "adapter-merged":
            low, high = hop["perplexity_change_ci"]
            assert low <= hop["perplexity_change"] <= high
    assert hops["onnx-fp32-genai-fp32"]["largest_logit_difference"] < 1e-3
    assert hops["onnx-fp32-genai-int4"]["prompt_agreement"] == 1
    assert hops["onnx-fp32-fp16"]["greedy_agreement"] > 0.99


def test_every_precision_is_a_row_of_the_summary_and_a_prefix_has_no_genai(exported: Workspace) -> None:
    rows = {(row["technique"], row["backend"]) for row in exported.summary()}
    merged = {"torch"} | {backend_of(name) for name in {*PRECISIONS} - GENAI}
    assert {backend for technique, backend in rows if technique == "lora"} == merged | GENAI
    assert {backend for technique, backend in rows if technique == "peft-prefix"} == merged


def test_every_export_is_timed_and_one_is_recommended(exported: Workspace) -> None:
    systems = read_json(run_of(exported) / "benchmark.json")["systems"]
    assert systems.keys() == {"torch-fp32", "torch-bf16"} | {backend_of(name) for name in PRECISIONS}
    for system in systems.values():
        assert [(shape["prompt_tokens"], shape["batch"]) for shape in system["shapes"]] == [(8, 1), (8, 2)]
        assert all(shape["decode_tokens_per_second"]["least"] > 0 for shape in system["shapes"])
    assert systems["onnx-fp16"]["file_bytes"] < systems["onnx-fp32"]["file_bytes"]
    report = (exported.path / "results/report.html").read_text()
    assert "Speed of each export" in report
    assert "within its parity budget" in report


def test_the_package_is_of_the_run_and_its_sums_hold(exported: Workspace) -> None:
    package = run_of(exported) / "package"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=package, check=True)
    export = run_of(exported) / "onnx/genai-int4"
    assert (package / "model.onnx_data").read_bytes() == (export / "model.onnx_data").read_bytes()
    card = yaml.safe_load((package / "README.md").read_text().split("---")[1])
    assert card["library_name"] == "onnxruntime-genai"


def test_the_adapter_apart_computes_what_the_merged_model_does(exported: Workspace) -> None:
    for name in ("fp32", "genai-fp32"):
        assert (
            read_json(run_of(exported) / f"onnx/adapter/parity-{name}.json")["largest_logit_difference"]["merged"]
            < 1e-3
        )


def test_packages_and_adapters_are_proven_too(exported: Workspace) -> None:
    exported.told("verify.py")
    for name in ("package/README.md", "onnx/adapter/adapter.onnx_adapter"):
        path = run_of(exported) / name
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        shown = exported.script("verify.py")
        path.write_bytes(content)
        assert name in refusal_of(shown)


def test_a_second_call_has_nothing_to_do(exported: Workspace) -> None:
    assert "Nothing to be done" in exported.run(*TARGETS)
