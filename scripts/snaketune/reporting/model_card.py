"""The content of a model card: every figure is read from a measured file, the template only words it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from snaketune.core import files, tables
from snaketune.core.errors import UserError
from snaketune.core.nested import flat
from snaketune.core.precisions import backend_of
from snaketune.reporting.difference import Difference, artifact, difference, too_few
from snaketune.reporting.params import PackageParams, named
from snaketune.reporting.results import UNTUNED

# Those of https://huggingface.co/docs/hub/repositories-licenses that models and data here may have.
HUB_LICENCES = {
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "isc", "unlicense", "gemma"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail", "odc-by", "odbl", "pddl"),
    *("cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3"),
}


def hub_licence(*stated: str) -> str:
    """Return the Hub's name of the licence, or `other` if the Hub does not know it or the parts have several."""
    names = {re.sub(r"\s+", "-", one.strip().lower()) for one in stated}
    return names.pop() if len(names) == 1 and names <= HUB_LICENCES else "other"


def front_matter(
    recipe: PackageParams, row: tables.Row, libraries: Sequence[str] = ("onnxruntime-genai", "onnx"), relation: str = ""
) -> str:
    """Return the card's metadata for the Hugging Face Hub as YAML, with the measured metric of the shipped model.

    Args:
        libraries: the one that loads it, then further tags.
        relation: to the base model, where it isn't a fine-tuned or quantized one.
    """
    model, scenario, technique = recipe["model"], recipe["scenario"], recipe["cell"][2]
    tuned = technique != UNTUNED
    licence = hub_licence(model["licence"], *([scenario["licence"]] if tuned else []))
    tags = [*reversed(libraries), "snaketune", "conversational", model["model_type"], recipe["precision"]]
    measured = EvalResult(
        task_type="text-generation",
        dataset_type=scenario["hub"] or recipe["cell"][1],
        dataset_name=recipe["cell"][1],
        dataset_split="test",
        dataset_revision=scenario["revision"],
        metric_type=row["metric"],
        metric_value=row["value"],
    )
    data = ModelCardData(
        license=licence,
        license_name="of-base-model-and-data" if licence == "other" else None,
        base_model=model["hub"],
        base_model_relation=model["hub"] and (relation or ("finetune" if tuned else "quantized")),
        datasets=[scenario["hub"]] if tuned and scenario["hub"] else None,
        language=scenario["languages"] or None,
        library_name=libraries[0],
        pipeline_tag="text-generation",
        tags=[*tags, scenario["task"], *([technique] if tuned else [])],
        model_name="-".join(map(str, (*recipe["cell"], recipe["precision"]))),
        eval_results=[measured],
    )
    return f"{data.to_yaml()}\n"


def summary_row(path: Path, recipe: PackageParams, backend: str) -> dict[str, Any]:
    """Return the run's row of one backend, its figures as numbers; a UserError if the summary lacks it."""
    keys = {key: str(part) for key, part in named(recipe["cell"]).items()} | {"backend": backend}
    for row in tables.read(path):
        if keys.items() <= row.items():
            words = {*keys, "metric", "higher_is_better"} - {"seed"}
            return {key: value if key in words else float(value) if value else None for key, value in row.items()}
    raise UserError(
        f"{path}: no row of {' / '.join(map(str, recipe['cell']))} with {backend}, which the model card needs: remake it with `snakemake {path}`"
    )


def verdict(gain: Difference, comparison: dict[str, Any], technique: str, seed: int) -> str:
    """Return what may be said of this model's difference from the untuned one; of its technique it says nothing.

    Better needs both: the interval of the shipped backend, and that of the report, which holds over all models of
    the scenario. Both are over test rows alone.
    """
    if gain.verdict == "better" and artifact(comparison, technique, seed).verdict != "better":
        return "not shown better"
    return gain.verdict


def of_technique(comparison: dict[str, Any], technique: str) -> str:
    """Return what the report shows of the technique, over seeds."""
    pair = next(pair for pair in comparison["pairs"] if (pair["a"], pair["b"]) == (UNTUNED, technique))
    if pair["claim"] == "artifact":
        return f"`{technique}` was trained with one seed, so nothing is shown about the technique: another seed gives another model. `make more-seeds` trains additional seeds where they would settle something"
    told, seeds = difference(comparison, technique, UNTUNED).verdict, comparison["seeds_of"][technique]
    return f"Over {len(seeds)} seeds and the test rows, `{technique}` compared with the untuned model: {told}"


def conversion_steps(parity: dict[str, Any], precision: str, path: Path) -> dict[str, dict[str, Any]]:
    """Return the parity figures of each step from the trained model to the shipped one; a UserError if the last is missing."""
    last = f"onnx-fp32-{precision}"
    if last not in parity["hops"]:
        raise UserError(
            f"{path}: no figures of the conversion step {last}: add {precision} to the experiment's `precisions` and run snakemake"
        )
    return {
        step: parity["hops"][step] for step in ("adapter-merged", "merged-onnx-fp32", last) if step in parity["hops"]
    }


def training_of(inputs: dict[str, Path]) -> dict[str, Any]:
    """Return the options, costs and packages of a run's training."""
    left_out = {"code", "environment", "keep_weights", "start_digests"}
    recipe = files.read_json(inputs["manifest"])["recipe"]
    options = {key: value for key, value in recipe.items() if key not in left_out}
    if "start_from" in options:
        # Where it was is of no use to others.
        options["start_from"] = {Path(name).name: digest for name, digest in recipe["start_digests"].items()}
    return {
        "options": flat(options),
        "resources": files.read_json(inputs["resources"]),
        "provenance": files.read_json(inputs["provenance"]),
    }


def told(
    recipe: PackageParams, comparison: dict[str, Any], row: dict[str, Any], inputs: dict[str, Path]
) -> dict[str, Any]:
    """Return what a card says of a run in any form; ``row`` is the form's in the summary."""
    model, scenario, technique, seed = recipe["cell"]
    tuned, gain = technique != UNTUNED, None
    if tuned:
        ends = (row["delta"], row["delta_ci_low"], row["delta_ci_high"])
        gain = Difference(*ends, comparison["higher_is_better"], too_few(int(row["n"])))
    return {
        "recipe": recipe,
        "name": " / ".join((model, scenario, technique, f"seed {seed}")),
        "tuned": tuned,
        "shipped": row,
        "difference": gain,
        "verdict": verdict(gain, comparison, technique, seed) if gain else None,
        "of_technique": of_technique(comparison, technique) if tuned else None,
        "comparison": comparison,
        "seeds": comparison["seeds_of"][technique] if tuned else [],
        "training": training_of(inputs) if tuned else None,
        "card": files.read_json(inputs["data"].with_name("card.json")),
    }


def content(inputs: dict[str, Path], recipe: PackageParams) -> dict[str, Any]:
    """Return what the template shows, except the shipped files; ``inputs`` are the measured files by role."""
    model, scenario, *_ = recipe["cell"]
    backends = ("torch", backend_of(recipe["precision"]))
    rows = [summary_row(inputs["summary"], recipe, name) for name in backends]
    comparisons = files.read_json(inputs["comparisons"])
    comparison = next(one for one in comparisons if (one["model"], one["scenario"]) == (model, scenario))
    parity = files.read_json(inputs["parity"])
    steps = conversion_steps(parity, recipe["precision"], inputs["parity"])
    shipped = rows[1]
    return {
        **told(recipe, comparison, shipped, inputs),
        "front_matter": front_matter(recipe, shipped),
        "rows": rows,
        "gate": parity["gate"],
        "steps": steps,
        "over_budget": [line for line in parity["over_budget"] if line.partition(": ")[0] in steps],
        "without_budget": [step for step in steps if step in parity["without_budget"]],
        "measured_on": files.read_json(inputs["evaluation"]),
        "context": files.read_json(inputs["export"].with_name("genai_config.json"))["model"]["context_length"],
    }
