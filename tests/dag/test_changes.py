"""For each kind of change, the exact set of jobs that must run."""

import pytest
from workspace import Workspace

QUANTIZED = ("int8", "int4")
END = {"summarize", "write_report"}


def after_onnx(technique: str, *precisions: str) -> set[str]:
    """What follows when these precisions of a run are made again."""
    return {f"evaluate_onnx {technique} {precision}" for precision in precisions} | {f"check_parity {technique}"} | END


def after_merged(technique: str) -> set[str]:
    quantize = {f"quantize_onnx {technique} {precision}" for precision in QUANTIZED}
    return (
        {f"evaluate_torch {technique}", f"export_onnx {technique}"}
        | quantize
        | after_onnx(technique, "fp32", *QUANTIZED)
    )


def trained(technique: str) -> set[str]:
    first = {
        "lora": {"train_adapter lora", "merge_adapter lora"},
        "full": {"train_all_weights full", "copy_model full"},
    }
    return first[technique] | after_merged(technique)


def untuned() -> set[str]:
    return {"copy_untuned_model base"} | after_merged("base")


RUNS = trained("lora") | trained("full")
EVALUATIONS = {f"evaluate_torch {t}" for t in ("base", "lora", "full")} | {
    f"evaluate_onnx {t} {p}" for t in ("base", "lora", "full") for p in ("fp32", *QUANTIZED)
}
PARITY = {f"check_parity {t}" for t in ("base", "lora", "full")}
FROM_TOKENS = RUNS | EVALUATIONS | PARITY | {"tokenize_data"}
FROM_DATA = {"prepare_data"} | FROM_TOKENS
FROM_BASE = {"pretrain_model"} | untuned() | FROM_TOKENS
EVERYTHING = {"collect_documentation", "train_tokenizer"} | FROM_DATA | FROM_BASE
RUN = "results/runs/tiny-phi3/classification"

MODEL_FILES = [
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "manifest.json",
    "provenance.json",
]
ONNX_FILES = ["model.onnx", "model.onnx_data", *MODEL_FILES[1:]]
DATA_FILES = ["train.jsonl", "validation.jsonl", "test.jsonl", "card.json", "manifest.json", "provenance.json"]
TOKEN_FILES = [
    "train.safetensors",
    "validation.safetensors",
    "test.safetensors",
    "candidates.json",
    "manifest.json",
    "provenance.json",
]


def contract() -> dict[str, set[str]]:
    """Every contract file, and the jobs that must run when it is deleted."""
    files = {f"results/data/classification/{name}": FROM_DATA for name in DATA_FILES}
    files |= {f"results/models/tiny-phi3/base/{name}": FROM_BASE for name in MODEL_FILES}
    files |= {f"results/models/tiny-phi3/{name}": FROM_BASE for name in ("pretraining.json", "pretraining.jsonl")}
    tokenizer = [*MODEL_FILES[3:5], "manifest.json", "provenance.json"]
    files |= {f"results/models/tiny-phi3/tokenizer/{name}": FROM_BASE | {"train_tokenizer"} for name in tokenizer}
    files |= {
        f"results/corpus/{name}": EVERYTHING for name in ("documentation.jsonl", "manifest.json", "provenance.json")
    }
    files |= {f"results/tokens/tiny-phi3/classification/{name}": FROM_TOKENS for name in TOKEN_FILES}
    for technique, weights in (
        ("lora", ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"]),
        ("full", [f"model/{name}" for name in MODEL_FILES[:3]]),
    ):
        names = [*weights, "train.jsonl", "resources.json", "manifest.json", "provenance.json"]
        files |= {f"{RUN}/{technique}/seed-1/{name}": trained(technique) for name in names}
    for technique, seed, merge in (
        ("base", 0, "copy_untuned_model base"),
        ("lora", 1, "merge_adapter lora"),
        ("full", 1, "copy_model full"),
    ):
        run = f"{RUN}/{technique}/seed-{seed}"
        files |= {f"{run}/merged/{name}": {merge} | after_merged(technique) for name in MODEL_FILES}
        exported = {f"export_onnx {technique}"} | (after_merged(technique) - {f"evaluate_torch {technique}"})
        files |= {f"{run}/onnx/fp32/{name}": exported for name in ONNX_FILES}
        for precision in QUANTIZED:
            files |= {
                f"{run}/onnx/{precision}/{name}": {f"quantize_onnx {technique} {precision}"}
                | after_onnx(technique, precision)
                for name in ONNX_FILES
            }
        for name in ("torch.json", "torch.predictions.jsonl", "torch.logits.safetensors"):
            files[f"{run}/evaluation/{name}"] = {f"evaluate_torch {technique}", f"check_parity {technique}"} | END
        for precision in ("fp32", *QUANTIZED):
            for name in ("json", "predictions.jsonl"):
                files[f"{run}/evaluation/onnx-{precision}.{name}"] = after_onnx(technique, precision)
        files[f"{run}/parity.json"] = {f"check_parity {technique}", "write_report"}
    files[f"{RUN}/lora/seed-1/evaluation/adapter.logits.safetensors"] = {"merge_adapter lora"} | after_merged("lora")
    files |= {f"results/{name}": END for name in ("summary.csv", "comparisons.json", "metrics.json")}
    return files | {"results/report.html": {"write_report"}}


def telling() -> list[str]:
    """Every file of the shared data and of the LoRA run; of the other runs, one a directory.

    Their further files are outputs of the same rules, and each costs seconds.
    """
    first: dict[str, str] = {}
    for name in contract():
        first.setdefault(name if "/runs/" not in name or "/lora/" in name else name.rsplit("/", 1)[0], name)
    return list(first.values())


@pytest.mark.parametrize("name", telling())
def test_a_deleted_contract_file_is_made_again_with_what_depends_on_it(finished: Workspace, name: str) -> None:
    path = finished.path / name
    aside = path.with_name(f".{path.name}.aside")
    path.rename(aside)
    try:
        assert finished.pending() == contract()[name]
    finally:
        aside.rename(path)


def test_the_contract_names_every_requested_file(finished: Workspace) -> None:
    made = set(finished.plans())
    assert made == set(contract())


CHANGES = {
    "a comment in a script": (("scripts/train.py", "def main() -> None:", "# why\ndef main() -> None:"), set()),
    "a docstring": (("scripts/snaketune/training.py", '"""Runs a plan', '"""Carries out a plan'), set()),
    "a line of the metrics": (
        ("scripts/snaketune/metrics.py", 'average="macro"', 'average="micro"'),
        EVALUATIONS | PARITY | END,
    ),
    "a line of the training loop": (("scripts/snaketune/training.py", "0.1 + 0.9", "0.2 + 0.8"), FROM_BASE),
    "a technique's rank": (("config/techniques/lora.yaml", "r: 8", "r: 4"), trained("lora")),
    "rank and alpha swapped": (
        ("config/techniques/lora.yaml", "r: 8\n    lora_alpha: 16", "r: 16\n    lora_alpha: 8"),
        trained("lora"),
    ),
    "a technique's description": (
        ("config/techniques/lora.yaml", "description: Low", "description: Very low"),
        {"write_report"},
    ),
    "the learning rate of another model": (
        ("config/techniques/lora.yaml", "default: ", "phi-4-mini-instruct: 1.0e-4, default: "),
        {"write_report"},
    ),
    "int4's block size": (
        ("config/exports/int4.yaml", "block_size: 32", "block_size: 64"),
        {f"quantize_onnx {t} int4" for t in ("base", "lora", "full")}
        | set().union(*(after_onnx(t, "int4") for t in ("base", "lora", "full"))),
    ),
    "the report's template": (("report/report.html.j2", "<h3>Loss</h3>", "<h3>Losses</h3>"), {"write_report"}),
    "the export's lock file": (
        ("envs/export/requirements.txt", "onnx==", "onnx===="),
        set().union(
            *({f"export_onnx {t}"} | (after_merged(t) - {f"evaluate_torch {t}"}) for t in ("base", "lora", "full"))
        ),
    ),
    "the scenario's prompt": (("config/scenarios/classification.yaml", "Which area", "What area"), FROM_DATA),
    "the corpus": (("config/config.yaml", "    networkx: networkx\n", ""), EVERYTHING),
    "a parity budget": (("config/config.yaml", "kl_divergence: 0.2", "kl_divergence: 0.3"), PARITY | {"write_report"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_runs_what_it_can_touch_and_nothing_else(edited: Workspace, change: str) -> None:
    (name, old, new), expected = CHANGES[change]
    edited.edit(name, old, new)
    assert edited.pending() == expected


def test_another_seed_runs_only_its_own_cells(edited: Workspace) -> None:
    edited.edit(edited.experiment, "- 1", "- 1\n- 2")
    assert (
        edited.pending()
        == {f"{job.replace(t, f'{t} seed 2')}" for t in ("lora", "full") for job in trained(t) - END} | END
    )


def test_touching_a_file_runs_nothing(finished: Workspace) -> None:
    for name in (
        "results/data/classification/manifest.json",
        "results/models/tiny-phi3/base/model.safetensors",
        "config/techniques/lora.yaml",
        "scripts/train.py",
    ):
        (finished.path / name).touch()
    assert finished.pending() == set()
