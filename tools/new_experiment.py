"""Start your own experiment: inspect a file of rows, write its scenario and experiment, and show the plan.

The file is read as described in docs/data.md. The task and the columns are inferred from it, and the choice is shown with
its reason; --task and --columns override it. Nothing is written unless every row can be read.
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from infer_task import Guess, guess
from snaketune.config.model import Model
from snaketune.config.scenario import Scenario
from snaketune.config.tasks import Columns
from snaketune.config.validation import validated
from snaketune.core.errors import UserError, run
from snaketune.core.files import read_yaml, write_text
from snaketune.dag.patterns import BASE, TRAINING
from snaketune.data.normalize import Normalizer
from snaketune.data.raw_rows import Faults, Row
from snaketune.data.read_files import read_rows
from snaketune.data.tasks import TASKS
from snaketune.provenance.snakemake_records import snakefile

ROOT = Path(__file__).resolve().parents[1]
# Labels that the prompt lists.
LISTED = 20
# Rows of a first run: with SmolLM2, LoRA and two cores it takes some ten minutes.
FIRST = {"train": 1000, "validation": 100, "test": 200}
# Few languages have fewer characters to a token with a small vocabulary.
CHARACTERS_PER_TOKEN = 2.5


def scripts_of(texts: list[str]) -> str:
    """Name the writing systems of at least a tenth of the letters."""
    letters = [one for text in texts for one in text[:2000] if one.isalpha()]
    counts = collections.Counter(unicodedata.name(one, "unknown").split()[0].capitalize() for one in letters[:100_000])
    return ", ".join(name for name, count in counts.most_common() if 10 * count >= counts.total()) or "no letters"


def lengths(texts: list[str]) -> tuple[int, int, int, int]:
    """Return the least, the median, the 99th percentile and the most characters."""
    sizes = sorted(map(len, texts))
    return sizes[0], sizes[len(sizes) // 2], sizes[99 * len(sizes) // 100], sizes[-1]


def scenario_of(path: str, guessed: Guess, rows: list[Row]) -> tuple[dict[str, Any], list[str]]:
    """Return what config/scenarios/ will say, and what the rows are like, in sentences.

    Raises:
        UserError: rows can't be read as this task; the message names the first ten.
    """
    source: dict[str, Any] = {"path": path, **({"columns": guessed.columns} if guessed.columns else {})}
    content: dict[str, Any] = {"description": f"Rows of {Path(path).name}.", "task": guessed.task, "source": source}
    if guessed.task == "translation" and "language" not in {*rows[0].content, *guessed.columns}:
        content["prompt"] = "Translate:\n{source}"
    checked = validated(Scenario, content, path).model_dump()
    faults = Faults()
    normalizer = Normalizer(checked, faults)  # type: ignore[arg-type]
    examples = [example for row in rows if (example := normalizer(row))]
    faults.stop()
    task = TASKS[guessed.task]
    texts = ["\n".join(task.texts(example.fields)) for example in examples]
    least, median, most, longest = lengths(texts)
    said = [
        f"{len(rows):,} rows of {', '.join(rows[0].content)}",
        f"task {guessed.task}: {guessed.reason}",
        f"{least:,} to {longest:,} characters, median {median:,}; scripts: {scripts_of(texts)}",
    ]
    labels = collections.Counter(label for example in examples for label in task.labels(example.fields))
    if labels:
        shown = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(8))
        said.append(f"{len(labels)} {task.labels_are}s: {shown}{', …' if len(labels) > 8 else ''}")
    if guessed.task == "classification" and len(labels) <= LISTED:
        listed = re.sub(r"([{}])", r"\1\1", ", ".join(sorted(labels)))
        content["prompt"] = f"Answer with one of these: {listed}.\n{{text}}"
        said.append("the prompt lists the labels, to give the untuned model a fair chance")
    if (tokens := most / CHARACTERS_PER_TOKEN) > checked["max_tokens"]:
        content["max_tokens"] = min(2048, -(-int(tokens) // 256) * 256)
        said.append(f"long rows: max_tokens {content['max_tokens']:,} instead of {checked['max_tokens']:,}")
    if len(rows) > sum(FIRST.values()):
        content["rows"] = FIRST
        said.append(
            f"limited to {FIRST['train']:,} training rows for a first run: remove `rows` from the scenario to use all"
        )
    validated(Scenario, content, path)
    return content, said


class Written(yaml.SafeDumper):
    """YAML as one writes it by hand: lists and inner mappings on a line, a text of several lines as a block."""


Written.add_representer(
    str, lambda out, text: out.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)
)


def yaml_of(content: dict[str, Any]) -> str:
    style: dict[str, Any] = {"sort_keys": False, "default_flow_style": None}
    return yaml.dump(content, Dumper=Written, allow_unicode=True, width=10**6, **style)


def columns_of(given: list[str]) -> dict[str, str]:
    pairs = dict(pair.partition("=")[::2] for pair in given)
    if wrong := [key for key, name in pairs.items() if key not in Columns.model_fields or not name]:
        raise UserError(f"--columns {wrong[0]}: expected KEY=NAME with a key of {', '.join(Columns.model_fields)}")
    return pairs


def download(project: Path, model: str) -> str:
    """Say what checking the rows downloads first: the model, unless it is there already."""
    path = next(
        (one for one in (root / f"config/models/{model}.yaml" for root in (project, ROOT)) if one.exists()), None
    )
    if not path or (project / BASE.format(model=model) / "manifest.json").exists():
        return ""
    found = validated(Model, read_yaml(path), str(path)).download
    return f", which downloads the model first ({found})" if found else ""


def start(project: Path, experiment: Path, tokens: str, at_once: bool) -> None:
    """Check the rows, show what the experiment needs, and start it if the user says so."""
    os.chdir(project)
    arguments = [*snakefile(), "--configfile", str(experiment.relative_to(project))]
    snakemake = [sys.executable, "-m", "snakemake", *arguments]
    if failed := subprocess.run([*snakemake, "--", f"{tokens}/manifest.json"], check=False).returncode:
        sys.exit(failed)
    print("\nWhat the remaining jobs take:", flush=True)
    subprocess.run([sys.executable, ROOT / "tools/plan_resources.py", *arguments], check=True)
    program = Path(sys.executable).with_name("snakemake")
    name = program.relative_to(project) if program.is_relative_to(project) else program
    print(f"\nStart it now or later with\n  {name} {' '.join(arguments)}", flush=True)
    if at_once or (sys.stdin.isatty() and input("Start it now? [y/N] ").strip().lower() in ("y", "yes")):
        os.execv(sys.executable, snakemake)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="one file: JSONL, JSON, CSV, TSV, Parquet or text")
    parser.add_argument("--name", help="name of the scenario and experiment (default: the file's name)")
    parser.add_argument("--directory", type=Path, default=Path(), help="of the project (default: the current one)")
    parser.add_argument("--task", choices=TASKS, help="instead of the inferred one")
    parser.add_argument("--columns", nargs="+", default=[], metavar="KEY=NAME", help="such as text=body label=team")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a file in config/models/ (%(default)s)")
    parser.add_argument("--technique", nargs="+", default=["lora"], help="files in config/techniques/ (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a scenario or experiment of that name")
    parser.add_argument("--run", action="store_true", help="start the run without asking")
    arguments = parser.parse_args()
    name = arguments.name or re.sub(r"[^a-z0-9]+", "-", arguments.data.name.partition(".")[0].lower()).strip("-")
    project, columns = arguments.directory.resolve(), columns_of(arguments.columns)
    paths = [project / f"config/{kind}/{name}.yaml" for kind in ("scenarios", "experiments")]
    taken = [path for path in paths if path.exists() and not arguments.force]
    if taken:
        raise UserError(
            f"{taken[0]} already exists: choose another --name, or replace it with --force (of make: ARGS=--force)"
        )

    faults = Faults()
    rows = list(read_rows({"hub": None, "path": str(arguments.data)}, faults))  # type: ignore[typeddict-item]
    faults.stop()
    guessed = Guess(arguments.task, columns, "as given") if arguments.task else guess(rows)
    guessed = guessed._replace(columns=guessed.columns | columns)
    data = arguments.data.resolve()
    path = str(data.relative_to(project)) if data.is_relative_to(project) else str(data)
    scenario, said = scenario_of(path, guessed, rows)
    experiment = {
        "models": [arguments.model],
        "scenarios": [name],
        "techniques": arguments.technique,
        "training": {"epochs": 1},
        "precisions": ["fp32", "int8-block"],
        "parity": {"gate": "warn"},
    }
    for written, content in zip(paths, (scenario, experiment), strict=True):
        write_text(written, yaml_of(content))
    print(f"{arguments.data}:", *said, sep="\n  ")
    print("Written:", *paths, sep="\n  ")
    print("`gate: warn` flags an export that loses quality instead of failing the run.\n")
    print(f"Checking the rows{download(project, arguments.model)}:", flush=True)
    start(project, paths[1], TRAINING.format(model=arguments.model, scenario=name), arguments.run)


if __name__ == "__main__":
    run(main)
