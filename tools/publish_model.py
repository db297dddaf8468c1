"""Write a run's adapter or merged model in the Hugging Face Hub's layout: weights, tokenizer and model card.

Nothing is sent; `hf upload OWNER/NAME FOLDER` does that.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
from snaketune.core import errors, files, layout, manifest, paths
from snaketune.core.errors import UserError
from snaketune.data.pii import KINDS, personal_data
from snaketune.reporting import model_card
from snaketune.reporting.numbers import mib
from snaketune.reporting.params import PackageParams
from snaketune.reporting.results import UNTUNED
from snaketune.reporting.templates import render

TEMPLATE = Path(__file__).parents[1] / "report/hub_card.md.j2"
# How a base is loaded on whose rounded weights an adapter was trained.
QUANTIZED = {
    "int8": "BitsAndBytesConfig(load_in_8bit=True)",
    "nf4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)',
}
# An absolute path, not a part of an address or of a relative path; its first directory.
ABSOLUTE = re.compile(r"(?<![\w.:/<~-])/([A-Za-z][\w.-]*)/[\w.@%+/-]+")
PRIVATE = {"home", "Users", "Volumes", "scratch", "mnt", "media", "lustre", "gpfs", "nfs"}
SYSTEM = {"bin", "dev", "etc", "lib", "opt", "proc", "sbin", "sys", "tmp", "usr", "var"}
DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def base_of(model: dict[str, Any], given: str | None) -> dict[str, str]:
    """Return the base model's name on the hub and its commit.

    Raises:
        UserError: it isn't on the hub, and no other was given.
    """
    if given:
        name, _, revision = given.partition("@")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or not re.fullmatch("[0-9a-f]{40}", revision):
            raise UserError(
                f"--base {given}: expected OWNER/NAME@COMMIT, with the 40-digit hash of a commit on the Hub"
            )
        return {"name": name, "revision": revision}
    if not model["hub"] or model.get("gguf"):
        raise UserError(
            "an adapter needs its base model, which isn't on the Hub in the form that was trained on: publish the merged model (MERGED=1), or name a base with the same weights (BASE=OWNER/NAME@COMMIT)"
        )
    return {"name": model["hub"], "revision": model["revision"]}


def recipe_of(results: Path, cell: paths.Cell, form: str) -> tuple[PackageParams, dict[str, Any]]:
    """Return what the card shows of the configuration, and the technique; from the record of the last experiment.

    Raises:
        UserError: the run isn't of that experiment.
    """
    known = files.read_yaml(results / "params.yaml")
    model, scenario, technique, _ = cell
    for kind, name in (("models", model), ("scenarios", scenario), ("techniques", technique)):
        if name not in known[kind]:
            raise UserError(
                f"{results}/params.yaml, the record of the last experiment, has no {name} in its {kind}: run this run's experiment again"
            )
    described, data, tuned = known["models"][model], known["scenarios"][scenario], known["techniques"][technique]
    source = data["source"]
    written = source["builtin"] not in (None, "tunes")
    recipe: Any = {
        "cell": list(cell),
        "precision": form,
        "model": {
            **{key: described.get(key) for key in ("licence", "hub", "revision", "model_type", "gguf")},
            "description": described["description"] or model,
        },
        "scenario": {
            **{key: data[key] for key in ("description", "licence", "task", "prompt")},
            **{key: source[key] for key in ("hub", "revision")},
            "languages": ["en", *source["options"].get("languages", {})] if written else [],
        },
        "technique": tuned["description"],
        "confidence": known["experiment"]["evaluation"]["confidence"],
    }
    return recipe, tuned


def content(results: Path, recipe: PackageParams, base: dict[str, str] | None, precision: str) -> dict[str, Any]:
    """Return what the card shows, except the files.

    Raises:
        UserError: a figure that it needs is missing.
    """
    model, scenario, *_ = recipe["cell"]
    run = results / paths.run_path(*recipe["cell"])
    inputs = {name: run / f"{name}.json" for name in ("manifest", "provenance", "resources")}
    inputs["data"] = results / paths.DATA.format(scenario=scenario) / "manifest.json"
    comparisons = results / "comparisons.json"
    if missing := [str(path) for path in (*inputs.values(), comparisons) if not path.is_file()]:
        raise UserError(f"{run}: can't be published without {', '.join(missing)}: run snakemake")
    row = model_card.summary_row(results / "summary.csv", recipe, "torch")
    comparison = next(
        one for one in files.read_json(comparisons) if (one["model"], one["scenario"]) == (model, scenario)
    )
    libraries, relation = (("peft", "transformers"), "adapter") if base else (("transformers",), "finetune")
    if base:
        recipe["model"] |= {"hub": base["name"], "revision": base["revision"]}
    return {
        **model_card.told(recipe, comparison, row, inputs),
        "front_matter": model_card.front_matter(recipe, row, libraries, relation),
        "base": base,
        "quantization": QUANTIZED.get(precision),
        "dtype": DTYPES.get(precision, "float32"),
    }


def sources_of(results: Path, cell: paths.Cell, merged: bool) -> list[Path]:
    """Return the files to copy, each as its manifest describes it.

    Raises:
        UserError: they aren't there, or have changed.
    """
    run, base = results / paths.run_path(*cell), results / paths.BASE.format(model=cell[0])
    if merged:
        weights = results / paths.weights_path(*cell)
        if not (weights / layout.MODEL_FILES[0]).is_file():
            raise UserError(f"{weights}: there is no merged model: make it with `snakemake {weights}/manifest.json`")
        manifest.prove(weights / "manifest.json", *layout.MODEL_FILES)
        return [weights / name for name in layout.MODEL_FILES]
    manifest.prove(run / "manifest.json", *(f"adapter/{name}" for name in layout.ADAPTER_FILES))
    manifest.prove(base / "manifest.json", *layout.TOKENIZER_FILES)
    return [
        *(run / "adapter" / name for name in layout.ADAPTER_FILES),
        *(base / name for name in layout.TOKENIZER_FILES),
    ]


def places_in(text: str) -> list[str]:
    """Return the absolute paths in a text, except those of a system, which are alike everywhere."""
    return [
        found[0]
        for found in ABSOLUTE.finditer(text)
        if found[1] in PRIVATE or (found[1] not in SYSTEM and Path("/", found[1]).is_dir())
    ]


def check_private(directory: Path, prompt: str) -> None:
    """Raise a UserError if a file for everybody to read names a directory of this machine or holds a secret key.

    Args:
        prompt: a part of the card that may name any path, if it isn't the project's or the user's own.
    """
    here = {str(place) for place in (Path.cwd(), Path.home(), Path.cwd().resolve()) if len(place.parts) > 1}
    for path in sorted(directory.iterdir()):
        if path.suffix in (".json", ".md") and path.name != "tokenizer.json":
            text = path.read_text(encoding="utf-8")
            found = [f"the path {place}" for place in sorted(here) if place in text]
            if path.name not in layout.TOKENIZER_FILES:  # a chat template may speak of /mnt/data
                found += [f"the path {place}" for place in places_in(text.replace(prompt, "") if prompt else text)]
            found += [f"a {kind} ({shown})" for kind, _, shown in personal_data(text) if kind == KINDS[2]]
            if found:
                raise UserError(f"{path.name} would contain {found[0]}: remove it from the descriptions in config/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="results/runs/MODEL/SCENARIO/TECHNIQUE/seed-N")
    parser.add_argument("to", type=Path, help="a folder that isn't there, or is empty")
    parser.add_argument("--merged", action="store_true", help="the whole model instead of an adapter")
    parser.add_argument(
        "--base", metavar="OWNER/NAME@COMMIT", help="an adapter's base on the hub, instead of the model's"
    )
    arguments = parser.parse_args()
    out: Path = arguments.to
    results, cell = paths.cell_of(arguments.run)
    if cell[2] == UNTUNED:
        raise UserError(f"{arguments.run} is the untuned model: give a run of a technique")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} isn't empty: give a new folder, or empty it")
    merged = arguments.merged or not (results / paths.run_path(*cell) / "adapter").is_dir()
    recipe, technique = recipe_of(results, cell, "merged" if merged else "adapter")
    precision: str = technique["base_precision"]
    if precision.startswith("export:") and not merged:
        raise UserError(
            f"{cell[2]} was trained on the numbers of an ONNX export ({precision}), which peft can't load: ship `adapter.onnx_adapter` with that export"
        )
    base = None if merged else base_of(recipe["model"], arguments.base)
    sources = sources_of(results, cell, merged)
    told = content(results, recipe, base, precision)
    files.need_space(out, sum(path.stat().st_size for path in sources), "the repository")
    with files.written_together(out) as aside:
        for path in sources:
            shutil.copyfile(path, aside / path.name)
        # That it was loaded from here is of no use elsewhere.
        tokenizer = files.read_json(aside / "tokenizer_config.json")
        files.write_json(
            aside / "tokenizer_config.json",
            {k: v for k, v in tokenizer.items() if k not in ("is_local", "local_files_only")},
        )
        if base:
            settings = files.read_json(aside / "adapter_config.json")
            settings |= {"base_model_name_or_path": base["name"], "revision": base["revision"]}
            files.write_json(aside / "adapter_config.json", settings)
        told["files"] = [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)}
            for path in sorted(aside.iterdir())
        ]
        (aside / "README.md").write_text(render(TEMPLATE, False, told), encoding="utf-8")
        check_private(aside, recipe["scenario"]["prompt"] or "")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(
        f"{out}: {recipe['precision']}, {mib(size)} MiB; {told['verdict']}. Nothing was sent: `hf upload OWNER/NAME {out}` does"
    )


if __name__ == "__main__":
    errors.run(main)
