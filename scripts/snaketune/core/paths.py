"""The directories of results, relative to results/."""

from collections.abc import Collection
from pathlib import Path

from snaketune.core.errors import UserError

Cell = tuple[str, str, str, int]

CORPUS = "corpus"
DATA = "data/{scenario}"
MODEL = "models/{model}"
BASE = f"{MODEL}/base"
TOKENIZER = f"{MODEL}/tokenizer"
# Two directories, so that an edit of test rows doesn't change what training reads.
TRAINING = "tokens/{model}/{scenario}/training"
TEST = "tokens/{model}/{scenario}/test"
RUNS = "runs/{model}/{scenario}/{technique}"
RUN = f"{RUNS}/seed-{{seed}}"
SUMMARY = ("summary.csv", "comparisons.json", "metrics.json")
TABLE = "technique_table.json"
PLOTS = ("plots/loss.csv", "plots/quality.csv")
REPORT = "report.html"


def run_path(model: str, scenario: str, technique: str, seed: int) -> str:
    return RUN.format(model=model, scenario=scenario, technique=technique, seed=seed)


def cell_of(directory: Path) -> tuple[Path, Cell]:
    """Return results/ and the cell of a run's directory.

    Raises:
        UserError: it isn't one.
    """
    parts = directory.resolve().parts
    if len(parts) < 6 or parts[-5] != "runs" or not parts[-1].startswith("seed-") or not directory.is_dir():
        raise UserError(
            f"{directory}: expected the directory of an existing run, results/runs/MODEL/SCENARIO/TECHNIQUE/seed-N"
        )
    *_, model, scenario, technique, seed = parts
    return Path(*parts[:-5]), (model, scenario, technique, int(seed.removeprefix("seed-")))


def weights_path(model: str, scenario: str, technique: str, seed: int) -> str:
    """Return the directory of the plain model that a run ends with; the untuned one is the base itself."""
    run = run_path(model, scenario, technique, seed)
    return BASE.format(model=model) if technique == "base" else f"{run}/merged"


def export_path(
    model: str, scenario: str, technique: str, seed: int, *, precision: str, calibrated: Collection[str]
) -> str:
    """Return the directory of an export.

    The untuned model is the same in every scenario, so its exports belong to the model, unless their
    precision is among those ``calibrated`` on a scenario's rows.
    """
    shared = technique == "base" and precision not in calibrated
    owner = MODEL.format(model=model) if shared else run_path(model, scenario, technique, seed)
    return f"{owner}/onnx/{precision}"


def shipped_path(kind: str, model: str, scenario: str, *, precision: str, calibrated: Collection[str]) -> str:
    """Return the directory of the untuned export's numbers (``dequantized``), or of the form that takes adapters (``switchable``)."""
    export = export_path(model, scenario, "base", 0, precision=precision, calibrated=calibrated)
    return export.replace("/onnx/", f"/{kind}/")


def property_path(technique: str, ranks: int, number: int) -> str:
    """Return the directory of a short run that measures properties; ``number`` is its round's, from 1."""
    return f"properties/{technique}/ranks-{ranks}/round-{number}"
