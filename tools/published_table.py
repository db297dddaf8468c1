"""Write docs/published-table.md from what was measured at each scale, and keep what an experiment measured for it.

A cell is decided by the largest model that measured it. Capabilities come from the archives of the SmolLM2 experiment
(`make smollm2`) or, until one of its parts is there, of one seed; memory also from what `make estimates` measured.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snakemake.utils import update_config

from parts import ROOT, Parts
from snaketune.config.claims import COLUMNS, REFERENCE, ROWS, STANDS_FOR
from snaketune.config.model import Model
from snaketune.config.validation import validated
from snaketune.core import errors, files
from snaketune.core.errors import UserError
from snaketune.dag.predictions import predicted
from snaketune.dag.recipes import Recipes
from snaketune.dag.shape import Shape
from snaketune.platforms.registry import read_matrix
from snaketune.reporting.claim_evidence import Runs, figure, memory, parameters
from snaketune.reporting.comparison import compare
from snaketune.reporting.params import SummaryParams, TableParams
from snaketune.reporting.results import UNTUNED, Results
from snaketune.reporting.scales import HELD, Cell, Cells, combine, page, with_tensors
from write_figures import write
from write_technique_table import capability, table

EXPERIMENT = ROOT / "config/experiments/published-table.yaml"
KEPT = ROOT / "benchmarks/published-table"
SMALL, SMOLLM2, RANDOM = "phi3-36m", "smollm2-135m-instruct", "qwen3-0.6b-random"
# The experiments on SmolLM2, the better one first, and where their archives are.
TRAINED = {"smollm2-table": "smollm2", "smollm2": "smollm2-one-seed"}
# What `make estimates` calls them; QLoRA is LoRA on NF4 there.
ESTIMATED = {SMALL: "36M", SMOLLM2: "135M", RANDOM: "0.6B"}
ROWS_TOKENS = {"rows": 2, "tokens": 128}
STATES = ("weights", "gradients", "optimizer")


def matrix_of(*overlays: Path) -> Recipes:
    config = files.read_yaml(ROOT / "config/config.yaml")
    for path in (EXPERIMENT, *overlays):
        update_config(config, files.read_yaml(path))
    return read_matrix(config, Path(), ROOT)


def keep(matrix: Recipes, results: Path, kept: Path) -> Path:
    """Keep the cells that the finished runs of an experiment decide, and return the file."""
    assert matrix.experiment.properties
    recipe = cast("TableParams", matrix.table_recipe())
    try:
        runs = Runs.read(results, recipe)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: not measured yet: run `snakemake properties` with this experiment"
        ) from None
    place = results / "comparisons.json"
    compared = files.read_json(place) if place.exists() else []
    # Those of another experiment, or of a part of this one, say nothing of its scenarios.
    whole = {one["scenario"] for one in compared if one["model"] == recipe["model"]} >= set(recipe["scenarios"])
    path = kept / f"{matrix.experiment.properties.model}.json"
    files.write_json(path, {"rows": table(recipe, compared if whole else [], runs)["rows"]})
    return path


def kept_cells(path: Path) -> Cells:
    """Return the cells of a file that `--keep` wrote."""
    rows = files.read_json(path)["rows"] if path.exists() else []
    return {(row["id"], cell["column"]): cell for row in rows for cell in row["cells"] if cell["evidence"]}


def trained_cells(experiment: str, directory: str) -> dict[tuple[str, str], Cell]:
    """Return what the archived runs of an experiment on SmolLM2 show: capabilities, memory and parameters."""
    parts = Parts(ROOT / f"config/experiments/{experiment}.yaml", ROOT / "benchmarks" / directory)
    found: dict[tuple[str, str], Cell] = {}
    with tempfile.TemporaryDirectory() as place:
        cells = [list(cell) for cell in parts.restore(Path(place), exports=False)]
        results = Results(Path(place), cast("SummaryParams", parts.matrix.summary_recipe() | {"cells": cells}))
        for scenario in dict.fromkeys(cell[1] for cell in cells):
            own = {cell[2]: cell for cell in reversed(cells) if cell[1] == scenario}
            if {UNTUNED, REFERENCE} <= own.keys():
                compared = {STANDS_FOR.get(scenario, scenario): compare(results, SMOLLM2, scenario)}
                resources = {name: results.resources(cell) for name, cell in own.items() if name != UNTUNED}
                found |= of_scenario(compared, whole_runs(parts.matrix, resources))
    return found


def whole_runs(matrix: Recipes, resources: dict[str, Any]) -> Runs:
    """Return whole trainings, one of each technique, as runs whose memory and parameters can be compared."""
    recipe: Any = {
        "properties": {"model": SMOLLM2, "rounds": 1, "seeds": matrix.experiment.seeds[:1]},
        "ranks": {name: one["world_size"] for name, one in resources.items()},
        "offloaded": [name for name in resources if matrix.techniques[name].engine.offload != "none"],
    }
    return Runs(recipe, {(name, one["world_size"], 1): one for name, one in resources.items()})


def of_scenario(compared: dict[str, Any], runs: Runs) -> Iterator[tuple[tuple[str, str], Cell]]:
    """Yield the cells of a scenario's trainings by row and column. Their time isn't among them: other work was running."""
    for column, technique in COLUMNS.items():
        if technique not in runs.recipe["ranks"]:
            continue
        verdicts = {
            key: capability(row, technique, compared) for key, row in ROWS.items() if {*row.scenarios} & {*compared}
        }
        verdicts |= {"memory": memory(runs, technique), "parameters": parameters(runs, technique)}
        for key, (measured, evidence, why) in verdicts.items():
            yield (key, column), {"measured": measured, "evidence": evidence, "why": why}


def tensors(estimates: dict[str, Any], model: str, layers: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield a technique and the bytes that it held of each kind, for all layers.

    Models of one and of two layers were measured; each further one adds their difference.
    """
    for technique in (REFERENCE, *COLUMNS.values()):
        own = {"technique": "lora"} if technique == "qlora" else {"technique": technique}
        quantized = {"base_precision": "nf4"} if technique == "qlora" else {}
        seen = estimates["cells"].get(json.dumps({"size": ESTIMATED[model], **own, **ROWS_TOKENS, **quantized}))
        if seen:
            one, two = seen["1"], seen["2"]
            yield technique, {kind: one[kind] + (layers - 1) * (two[kind] - one[kind]) for kind in (*STATES, "tensors")}


def estimated_cells(estimates: dict[str, Any], model: str, shape: Shape, cells: Cells) -> dict[tuple[str, str], Cell]:
    """Return the verdicts on memory and parameters of the followed tensors; memory of ``cells`` keeps its other figures."""
    held = dict(tensors(estimates, model, shape.layers))
    full, found = held.pop(REFERENCE), {}
    hardware = f"{estimates['hardware']['processor']}, 1 core"
    about = {"model": model, "device": hardware, "tokens": 2 * ROWS_TOKENS["rows"] * ROWS_TOKENS["tokens"]}
    for column, technique in COLUMNS.items():
        if technique not in held:
            continue
        mine = held[technique]
        ratio = mine["tensors"] / full["tensors"]
        text = f"all tensors alive at one time: {ratio:.3g} × full ({mine['tensors'] / 1e6:,.0f} of {full['tensors'] / 1e6:,.0f} MB), 2 rows of 128 tokens"
        alive = figure("all tensors alive at one time", [ratio], "× full", 1, "run", **about, text=text)
        states = sum(mine[kind] for kind in STATES) / sum(full[kind] for kind in STATES)
        held_states = figure(HELD, [states], "× full", 1, "run", **about)
        found["memory", column] = with_tensors(cells.get(("memory", column)), [alive, held_states])
        trained = int(mine["gradients"]) // 4
        share = f"parameters trained: {trained:,} of {int(full['gradients']) // 4:,} ({100 * trained * 4 / full['gradients']:.3g} %)"
        fewer = figure(
            "share of the parameters trained",
            [trained * 4 / full["gradients"]],
            "of all",
            1,
            "run",
            **about,
            text=share,
        )
        found["parameters", column] = {
            "measured": "yes" if trained * 4 < full["gradients"] else "no",
            "why": None,
            "evidence": [fewer],
        }
    return found


def scales(kept: Path) -> Iterator[Cells]:
    """Yield what each scale measured, from the smallest to the largest."""
    trained = next(filter(None, (trained_cells(*each) for each in TRAINED.items())), {})
    estimates = files.read_json(ROOT / "benchmarks/estimates.json")
    for model in ESTIMATED:
        # Short runs of equal work, where there are some, rather than whole trainings.
        cells = {**(trained if model == SMOLLM2 else {}), **kept_cells(kept / f"{model}.json")}
        preset = ROOT / f"config/models/{model}.yaml"
        shape = Shape.of(validated(Model, files.read_yaml(preset), preset).sizes)
        yield {**cells, **estimated_cells(estimates, model, shape, cells)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep",
        type=Path,
        nargs="*",
        metavar="OVERLAY",
        help="keep what config/experiments/published-table.yaml, with these overlays, measured",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="(%(default)s)")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/published-table.md", help="(%(default)s)")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        print(f"kept: {keep(matrix_of(*arguments.keep), arguments.results, KEPT)}")
    write([arguments.page], {"scales": page(combine(scales(KEPT), predicted(matrix_of())))})


if __name__ == "__main__":
    errors.run(main)
