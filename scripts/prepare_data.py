"""Turn a scenario's source into train, validation and test rows and a card of what was kept."""

import argparse
import collections
import importlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from snaketune.config.templates import Example, origin
from snaketune.core import errors, files, manifest
from snaketune.core.hashing import hash_order
from snaketune.core.layout import SPLITS
from snaketune.data import gate
from snaketune.data.findings import Findings
from snaketune.data.normalize import Shaper
from snaketune.data.raw_rows import Faults
from snaketune.data.read_files import read_rows

# A larger share tells of wrong columns.
MALFORMED_ON_HUB = 0.01
ROWS_ARE = {
    "classification": "a text, and its label as the answer",
    "tagging": "a sentence, and its entities with their types as the answer",
    "translation": "a text, and its translation as the answer",
    "qa": "a passage with a question, and a part of the passage as the answer",
    "chat": "a conversation whose last turn is the assistant's",
    "language-modeling": "a text",
    "generation": "a prompt, and its completion as the answer",
}


def read_examples(scenario: dict[str, Any], corpus: Path) -> tuple[list[Example], int]:
    """The examples of a scenario, and how many malformed rows were left out.

    ``corpus`` is documentation.jsonl, which built-in corpora read. A few rows of the hub may be
    malformed, as nobody here can mend them; none of the user's own files.

    Raises:
        UserError: the data are malformed or can't be loaded; the message names the first ten
            places, and how many more there are.
    """
    source = scenario["source"]
    if source["builtin"]:
        module = importlib.import_module(f"snaketune.corpora.{source['builtin']}")
        return module.examples(corpus, **source["options"]), 0
    faults = Faults()
    shaper = Shaper(scenario, faults)
    shaped = [shaper(row) for row in read_rows(source, faults)]
    if not source["hub"] or faults.count > MALFORMED_ON_HUB * len(shaped):
        faults.stop()
    return [example for example in shaped if example is not None], faults.count


def assign_splits(examples: list[Example], shares: dict[str, float]) -> None:
    """Give each example a split by its group, which is never divided, where the data give none.

    What the data give stays in "given". Splits that they lack are taken from their training rows.
    """
    given = {example["split"] for example in examples if "split" in example}
    for example in examples:
        if "split" in example:
            example["given"] = example["split"]
    pending = [example for example in examples if "split" not in example]
    wanted = {"test", "validation"}
    if not pending:
        wanted -= given
        pending = [example for example in examples if wanted and example["split"] == "train"]
    groups = sorted({example["group"] for example in pending}, key=hash_order)
    test, validation = (shares[name] * len(groups) if name in wanted else 0 for name in ("test", "validation"))
    split = {
        group: "test" if number < test else "validation" if number < test + validation else "train"
        for number, group in enumerate(groups)
    }
    for example in pending:
        example["split"] = split[example["group"]]


def entities_of(tokens: list[str], tags: list[str]) -> list[tuple[str, str]]:
    """Each entity of a sentence with BIO tags, in order, as its words and its type."""
    found: list[tuple[str, str]] = []
    for token, tag in zip(tokens, tags, strict=True):
        if tag.startswith("B-"):
            found.append((token, tag[2:]))
        elif tag.startswith("I-"):
            found[-1] = (f"{found[-1][0]} {token}", found[-1][1])
    return found


def fields_of(task: str, example: Example) -> dict[str, str]:
    """What the templates `prompt` and `answer` of a scenario may hold."""
    if task == "tagging":
        entities = entities_of(example["tokens"], example["tags"])
        written = "; ".join(f"{words}: {kind}" for words, kind in entities) or "none"
        return {"sentence": " ".join(example["tokens"]), "entities": written}
    if task == "qa":
        return {"context": example["context"], "question": example["question"], "answer": example["answers"][0]}
    if task == "translation":
        return {"language": example.get("language", ""), "source": example["source"], "target": example["target"]}
    names = {"classification": ("text", "label"), "generation": ("prompt", "completion")}[task]
    return {name: example[name] for name in names}


def reference_of(task: str, example: Example) -> Any:
    """What a generated answer is scored against."""
    if task == "tagging":
        return {"tokens": example["tokens"], "tags": example["tags"]}
    if task == "chat":
        return example["messages"][-1]["content"]
    return example[
        {"classification": "label", "translation": "target", "qa": "answers", "generation": "completion"}[task]
    ]


def prepared(example: Example, scenario: dict[str, Any]) -> dict[str, Any]:
    """The row as it is written: messages with a reference, or a text."""
    task = scenario["task"]
    if task == "language-modeling":
        return {"id": example["id"], "text": example["text"]}
    if task == "chat":
        messages = example["messages"]
    else:
        fields = fields_of(task, example)
        messages = [
            {"role": "user", "content": scenario["prompt"].format(**fields)},
            {"role": "assistant", "content": scenario["answer"].format(**fields)},
        ]
    return {"id": example["id"], "messages": messages, "reference": reference_of(task, example)}


def lengths(texts: list[str]) -> dict[str, float]:
    """Shortest, median and longest length in characters."""
    found = [len(text) for text in texts]
    return {"shortest": min(found), "median": statistics.median(found), "longest": max(found)}


def card(
    read: int, kept: list[Example], rows: dict[str, list[dict[str, Any]]], findings: Findings, scenario: Any
) -> dict[str, Any]:
    task = scenario["task"]
    labels = {
        split: collections.Counter(e["label"] for e in kept if e["split"] == split and "label" in e) for split in SPLITS
    }
    entities = {
        split: collections.Counter(
            kind for e in kept if e["split"] == split and "tags" in e for _, kind in entities_of(e["tokens"], e["tags"])
        )
        for split in SPLITS
    }
    written = [row for split in SPLITS for row in rows[split]]
    if task == "language-modeling":
        characters = {"text": lengths([row["text"] for row in written])}
    else:
        characters = {
            "prompt": lengths(["\n".join(m["content"] for m in row["messages"][:-1]) for row in written]),
            "answer": lengths([row["messages"][-1]["content"] for row in written]),
        }
    return {
        "task": task,
        "source": origin(scenario["source"]),
        "rows_are": ROWS_ARE[task],
        "read": read,
        "kept": {split: len(rows[split]) for split in SPLITS},
        "dropped": dict(sorted(findings.dropped.items())),
        "labels": sorted(labels["train"]),
        "answers": [scenario["answer"].format(label=label, text="") for label in sorted(labels["train"])],
        "rows_per_label": {split: dict(sorted(counts.items())) for split, counts in labels.items() if counts},
        "entities_per_type": {split: dict(sorted(counts.items())) for split, counts in entities.items() if counts},
        "majority_share_of_test": findings.counts["majority"].share if task == "classification" else None,
        "near_duplicates": f"near-duplicates of a kept text were dropped (MinHash of word trigrams, threshold {scenario['near_duplicates']['threshold']})",
        "characters": characters,
        "figures": findings.figures(),
    }


def check_sources(paths: list[Path], digests: dict[str, str], builtin: bool) -> None:
    """Raise a UserError where a source isn't what it was when the job was planned."""
    manifest.prove_sources(digests)
    for path in paths if builtin else []:
        manifest.prove(path.parent / "manifest.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True, help="the resolved scenario as JSON")
    parser.add_argument(
        "--source", type=Path, nargs="*", default=[], help="the user's files, or documentation.jsonl for a built-in one"
    )
    parser.add_argument("--output-directory", type=Path, required=True)
    arguments = parser.parse_args()
    scenario, out, sources = arguments.recipe["scenario"], arguments.output_directory, arguments.source
    check_sources(sources, arguments.recipe["source_digests"], bool(scenario["source"]["builtin"]))

    examples, malformed = read_examples(scenario, next(iter(sources), Path()))
    assign_splits(examples, scenario["split"])
    kept, findings = gate.sift(examples, scenario)
    if malformed:
        findings.dropped["malformed"] = malformed
    verdict = gate.judge(findings, scenario)
    gate.check_rows(kept, scenario)
    kept.sort(key=lambda example: hash_order(example["id"]))
    rows = {split: [prepared(e, scenario) for e in kept if e["split"] == split] for split in SPLITS}
    described = card(len(examples) + malformed, kept, rows, findings, scenario) | {"gate": verdict}
    for split in SPLITS:
        files.write_jsonl(out / f"{split}.jsonl", rows[split])
    described["sha256"] = {split: files.sha256(out / f"{split}.jsonl") for split in SPLITS}
    files.write_json(out / "card.json", described)
    manifest.record(out, arguments.recipe, sources, [out / "card.json", *(out / f"{split}.jsonl" for split in SPLITS)])
    for sentence in verdict["over_budget"]:
        print(f"over budget: {sentence}", file=sys.stderr)
    print(json.dumps(described["kept"]))


if __name__ == "__main__":
    errors.run(main)
