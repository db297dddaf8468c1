"""What a model card tells, each figure from a measured file; the template only words it."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml

from snaketune.core import files
from snaketune.core.errors import UserError
from snaketune.core.precisions import backend_of

MIB = 2**20
# Of https://huggingface.co/docs/hub/repositories-licenses, those that models and data here may have.
HUB_LICENCES = {
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "isc", "unlicense", "gemma"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail", "odc-by", "odbl", "pddl"),
    *("cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3"),
}
UNTUNED = "base"


def hub_licence(*stated: str) -> dict[str, str]:
    """The front matter's licence: the hub's name of it where every part has that same one, else `other`."""
    [*names] = {re.sub(r"\s+", "-", one.strip().lower()) for one in stated}
    if len(names) == 1 and names[0] in HUB_LICENCES:
        return {"license": names[0]}
    return {"license": "other", "license_name": "of-base-model-and-data"}


def front_matter(recipe: dict[str, Any]) -> str:
    """The card's metadata as the hub reads it, in YAML."""
    model, scenario = recipe["model"], recipe["scenario"]
    technique = recipe["cell"][2]
    tuned = technique != UNTUNED
    found: dict[str, Any] = hub_licence(model["licence"], *([scenario["licence"]] if tuned else []))
    if model["hub"]:
        found |= {"base_model": model["hub"], "base_model_relation": "finetune" if tuned else "quantized"}
    if tuned and scenario["hub"]:
        found["datasets"] = [scenario["hub"]]
    if scenario["languages"]:
        found["language"] = scenario["languages"]
    tags = ["onnx", "onnxruntime-genai", "snaketune", "conversational", model["model_type"], recipe["precision"]]
    found |= {
        "library_name": "onnxruntime-genai",
        "pipeline_tag": "text-generation",
        "tags": [*tags, scenario["task"], *([technique] if tuned else [])],
    }
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=10000)


def summary_row(path: Path, recipe: dict[str, Any], backend: str) -> dict[str, Any]:
    """The run's row of one backend, its numbers read.

    Raises:
        UserError: the summary has no such row.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = (*map(str, recipe["cell"]), backend)
    for row in rows:
        if (row["model"], row["scenario"], row["technique"], row["seed"], row["backend"]) == keys:
            words = {"model", "scenario", "technique", "backend", "metric", "higher_is_better"}
            return {key: value if key in words else float(value) if value else None for key, value in row.items()}
    raise UserError(
        f"{path}: no row of {' / '.join(keys[:4])} with {backend}, whose figures the model card tells: make it again with `snakemake {path}`"
    )


def verdict(row: dict[str, Any], comparison: dict[str, Any], technique: str) -> str:
    """What may be said of a tuned model: `better`, `worse` or `not shown better` than the untuned one.

    Better needs both: the shipped backend's own interval, and that of the report, which holds over
    all comparisons of the scenario and over every seed.
    """
    low, high = row["delta_ci_low"], row["delta_ci_high"]
    if comparison["higher_is_better"] is False:
        low, high = -high, -low
    if high < 0:
        return "worse"
    return "better" if low > 0 and technique not in comparison["not_better_than_base"] else "not shown better"


def hops_to(parity: dict[str, Any], precision: str, path: Path) -> dict[str, dict[str, Any]]:
    """The figures of each hop from what was trained to what is shipped.

    Raises:
        UserError: the shipped precision wasn't compared with its parent.
    """
    last = f"onnx-fp32-{precision}"
    if last not in parity["hops"]:
        raise UserError(
            f"{path}: no hop {last}, which a model card tells: make it again with {precision} among the experiment's `precisions`"
        )
    return {hop: parity["hops"][hop] for hop in ("adapter-merged", "merged-onnx-fp32", last) if hop in parity["hops"]}


def flat(options: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested options as one level, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def training_of(run: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """How the run was trained, on what and with which packages; nothing for the untuned model."""
    if recipe["cell"][2] == UNTUNED:
        return None
    unsaid = {"code", "environment", "keep_weights"}
    options = files.read_json(run / "manifest.json")["recipe"]
    return {
        "options": flat({key: value for key, value in options.items() if key not in unsaid}),
        "resources": files.read_json(run / "resources.json"),
        "provenance": files.read_json(run / "provenance.json"),
    }


def told(results: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """All that the template shows, but the shipped files.

    Raises:
        UserError: a piece is missing.
    """
    model, scenario, technique, seed = recipe["cell"]
    run, precision = results / "runs" / model / scenario / technique / f"seed-{seed}", recipe["precision"]
    rows = [summary_row(results / "summary.csv", recipe, name) for name in ("torch", backend_of(precision))]
    comparison = next(
        one
        for one in files.read_json(results / "comparisons.json")
        if (one["model"], one["scenario"]) == (model, scenario)
    )
    parity = files.read_json(run / "parity.json")
    hops = hops_to(parity, precision, run / "parity.json")
    return {
        "recipe": recipe,
        "front_matter": front_matter(recipe),
        "name": " / ".join((model, scenario, technique, f"seed {seed}")),
        "tuned": technique != UNTUNED,
        "rows": rows,
        "verdict": verdict(rows[1], comparison, technique) if technique != UNTUNED else None,
        "comparison": comparison,
        "gate": parity["gate"],
        "hops": hops,
        "over_budget": [line for line in parity["over_budget"] if line.partition(": ")[0] in hops],
        "without_budget": [hop for hop in hops if hop in parity["without_budget"]],
        "training": training_of(run, recipe),
        "card": files.read_json(results / "data" / scenario / "card.json"),
        "measured_on": files.read_json(run / f"evaluation/{backend_of(precision)}.json"),
        "context": files.read_json(run / f"onnx/{precision}/genai_config.json")["model"]["context_length"],
    }


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Fixed digits after the point; where nothing would be left of a small value, as many significant ones."""
    if value is None:
        return "–"
    tiny = 0 < abs(value) < 0.5 * 10**-digits
    return f"{value:{'+' if sign else ''}{f'.{digits}g' if tiny else f',.{digits}f'}}"


def render(template: str, content: dict[str, Any]) -> str:
    """The card in Markdown."""
    environment = jinja2.Environment(  # noqa: S701  Markdown: escaped quotes would show in code
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "number": number,
        "json": json.dumps,
        "mib": lambda size: number(size / MIB, 1),
        # A description may go over lines, and a template must stay in its table or list.
        "line": lambda text: " ".join(str(text).split()),
    }
    return environment.from_string(template).render(**content)
