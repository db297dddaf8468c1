"""Turn a scenario's source into train, validation and test rows, and a card of what was kept."""

import collections
import importlib
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.core import cli, errors, files, manifest
from snaketune.core.hashing import hash_order
from snaketune.core.layout import SPLITS
from snaketune.data import gate
from snaketune.data.examples import Example
from snaketune.data.findings import Findings
from snaketune.data.formats import write_prepared
from snaketune.data.normalize import Normalizer
from snaketune.data.params import DataParams, ScenarioParams, origin
from snaketune.data.raw_rows import Faults
from snaketune.data.read_files import read_rows
from snaketune.data.tasks import TASKS

# A larger share is a sign of wrong columns.
MALFORMED_ON_HUB = 0.01


def read_examples(scenario: ScenarioParams, corpus: Path) -> tuple[list[Example], int]:
    """Return the examples of a scenario, and how many malformed rows were left out.

    ``corpus`` is documentation.jsonl, which built-in corpora read. A few rows of a hub dataset may be
    malformed, as the user can't fix them; none of the user's own files.

    Raises:
        UserError: the data are malformed or can't be loaded; the message names the first ten
            places, and how many more there are.
    """
    source = scenario["source"]
    if source["builtin"]:
        module = importlib.import_module(f"snaketune.corpora.{source['builtin']}")
        return module.examples(corpus, **source["options"]), 0
    faults = Faults()
    normalizer = Normalizer(scenario, faults)
    examples = [normalizer(row) for row in read_rows(source, faults)]
    if not source["hub"] or faults.count > MALFORMED_ON_HUB * len(examples):
        faults.stop()
    return [example for example in examples if example is not None], faults.count


def assign_splits(examples: list[Example], shares: dict[str, float]) -> None:
    """Assign whole groups to splits where the data give none; splits that the data lack come from their training rows."""
    for example in examples:
        example.given_split = example.split
    pending, wanted = [example for example in examples if not example.split], {"test", "validation"}
    if not pending:
        wanted -= {example.split for example in examples}
        pending = [example for example in examples if wanted and example.split == "train"]
    groups = sorted({example.group for example in pending}, key=hash_order)
    test, validation = (shares[name] * len(groups) if name in wanted else 0 for name in ("test", "validation"))
    place = {group: number for number, group in enumerate(groups)}
    for example in pending:
        number = place[example.group]
        example.split = "test" if number < test else "validation" if number < test + validation else "train"


def lengths(texts: Iterable[str]) -> dict[str, float]:
    """Return the shortest, median and longest length in characters."""
    characters = list(map(len, texts))
    return {"shortest": min(characters), "median": statistics.median(characters), "longest": max(characters)}


def card(
    read: int, kept: list[Example], rows: dict[str, list[dict[str, Any]]], findings: Findings, scenario: ScenarioParams
) -> dict[str, Any]:
    task = TASKS[scenario["task"]]
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for example in kept:
        if found := task.labels(example.fields):
            counts[example.split].update(found)
    labels = sorted(counts["train"]) if task.labels_are == "label" else []
    written = [row for split in SPLITS for row in rows[split]]
    per_file: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for example in kept if isinstance(scenario["source"]["path"], list) else []:
        per_file[example.file][example.split] += 1
    if "messages" in written[0]:
        characters = {
            "prompt": lengths("\n".join(m["content"] for m in row["messages"][:-1]) for row in written),
            "answer": lengths(row["messages"][-1]["content"] for row in written),
        }
    else:
        characters = {"text": lengths(row["text"] for row in written)}
    return {
        "task": scenario["task"],
        "source": origin(scenario["source"]),
        "rows_are": task.rows_are,
        "read": read,
        "kept": {split: len(rows[split]) for split in SPLITS},
        "dropped": findings.dropped,
        **({"rows_per_file": per_file} if per_file else {}),
        "labels": labels,
        "answers": [scenario["answer"].format(label=label, text="") for label in labels],
        "rows_per_label": counts if task.labels_are == "label" else {},
        "entities_per_type": counts if task.labels_are == "entity type" else {},
        "majority_share_of_test": findings.counts["majority"].share if task.labels_are == "label" else None,
        "near_duplicates": f"near-duplicates of a kept text were dropped (MinHash of word trigrams, threshold {scenario['near_duplicates']['threshold']})",
        "characters": characters,
        "figures": findings.figures(),
    }


def main() -> None:
    parser = cli.job_parser(__doc__, DataParams, "--output-directory")
    parser.add_argument(
        "--source", type=Path, nargs="*", default=[], help="the user's files, or documentation.jsonl for a built-in one"
    )
    arguments = parser.parse_args()
    recipe: DataParams = arguments.recipe
    scenario, out, sources = recipe["scenario"], arguments.output_directory, arguments.source
    manifest.prove_sources(recipe["source_digests"])
    for path in sources if scenario["source"]["builtin"] else []:
        manifest.prove(path.parent / "manifest.json")

    examples, malformed = read_examples(scenario, next(iter(sources), Path()))
    assign_splits(examples, scenario["split"])
    kept, findings = gate.filter_rows(examples, scenario)
    if malformed:
        findings.dropped["malformed"] = malformed
    verdict = gate.judge(findings, scenario)
    gate.check_rows(kept, findings, scenario)
    kept.sort(key=lambda example: hash_order(example.id))
    task, prompt, answer = TASKS[scenario["task"]], scenario["prompt"], scenario["answer"]
    rows = {
        split: [{"id": one.id, **task.written(one.fields, prompt, answer)} for one in kept if one.split == split]
        for split in SPLITS
    }
    described = card(len(examples) + malformed, kept, rows, findings, scenario) | {"gate": verdict}
    for split in SPLITS:
        write_prepared(out / f"{split}.jsonl", rows[split])
    described["sha256"] = {split: files.sha256(out / f"{split}.jsonl") for split in SPLITS}
    files.write_json(out / "card.json", described)
    manifest.record(out, arguments.recipe, sources, [out / "card.json", *(out / f"{split}.jsonl" for split in SPLITS)])
    for sentence in verdict["over_budget"]:
        print(f"over budget: {sentence}", file=sys.stderr)
    print(json.dumps(described["kept"]))


if __name__ == "__main__":
    errors.run(main)
