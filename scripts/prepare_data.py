"""Turn a scenario's source into train, validation and test chats and a card of what was kept."""

import argparse
import collections
import json
import re
from pathlib import Path
from typing import Any

from datasketch import MinHash, MinHashLSH

from snaketune import errors, files, manifest
from snaketune.errors import UserError
from snaketune.layout import SPLITS
from snaketune.sources import Example, hash_order, read_examples

MINIMUM_ROWS = {"train": 8, "validation": 2, "test": 2}


def assign_splits(examples: list[Example], shares: dict[str, float]) -> None:
    """Give each example without a split one by its group: a group is never divided."""
    groups = sorted({example["group"] for example in examples if "split" not in example}, key=hash_order)
    bounds = {"test": shares["test"] * len(groups), "validation": (shares["test"] + shares["validation"]) * len(groups)}
    split = {
        group: next((name for name, bound in bounds.items() if number < bound), "train")
        for number, group in enumerate(groups)
    }
    for example in examples:
        example.setdefault("split", split.get(example["group"], "train"))


class NearDuplicates:
    """Texts kept so far; MinHash finds candidates, their exact Jaccard similarity decides."""

    def __init__(self, threshold: float, permutations: int):
        self.threshold, self.permutations = threshold, permutations
        # Bands of two rows let nearly no pair over the threshold escape.
        self.index = MinHashLSH(num_perm=permutations, params=(permutations // 2, 2))
        self.kept: list[frozenset[str]] = []

    def add(self, text: str) -> bool:
        """Keep the text, unless it is a near-duplicate of a kept one; returns whether it was kept."""
        words = re.findall(r"\w+", text.lower())
        trigrams = frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))
        hashed = MinHash(num_perm=self.permutations, seed=1)
        hashed.update_batch([trigram.encode() for trigram in sorted(trigrams)])
        for number in self.index.query(hashed):
            other = self.kept[int(number)]
            if len(trigrams & other) >= self.threshold * len(trigrams | other):
                return False
        self.index.insert(str(len(self.kept)), hashed)
        self.kept.append(trigrams)
        return True


def select(
    examples: list[Example], rows_per_label: dict[str, int] | None, near: dict[str, Any]
) -> tuple[list[Example], collections.Counter[str]]:
    """Examples without near-duplicates, test first, then at most so many a label and split.

    A text that is near one already kept is dropped, so none crosses splits.
    """
    dropped: collections.Counter[str] = collections.Counter()
    texts = NearDuplicates(**near)
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    kept: list[Example] = []
    for example in sorted(
        examples, key=lambda example: (SPLITS[::-1].index(example["split"]), hash_order(example["id"]))
    ):
        cell = (example["label"], example["split"])
        if rows_per_label and count[cell] >= rows_per_label[example["split"]]:
            dropped["over the number of rows per label"] += 1
            continue
        if not texts.add(example["text"]):
            dropped["near-duplicate of a kept row"] += 1
            continue
        count[cell] += 1
        kept.append(example)
    return kept, dropped


def check(kept: list[Example], scenario: dict[str, Any]) -> None:
    """Raise a UserError where the rows can't make the scenario."""
    name = scenario["source"].get("path") or scenario["source"]["builtin"]
    labels = collections.defaultdict(set)
    for example in kept:
        labels[example["split"]].add(example["label"])
    for split in SPLITS:
        rows = sum(example["split"] == split for example in kept)
        if rows < MINIMUM_ROWS[split]:
            raise UserError(
                f"{name}: {rows} rows left for {split}, at least {MINIMUM_ROWS[split]} are needed; add rows or change `split:` in the scenario"
            )
        if unseen := labels[split] - labels["train"]:
            raise UserError(f"{name}: label {sorted(unseen)[0]!r} is in {split} but in no training row; add rows of it")
    if len(labels["train"]) < 2:
        raise UserError(f"{name}: only one label ({labels['train'].pop()!r}); classification needs two or more")


def chat(example: Example, scenario: dict[str, Any]) -> dict[str, Any]:
    fields = {"text": example["text"], "label": example["label"]}
    user, assistant = scenario["prompt"].format(**fields), scenario["answer"].format(**fields)
    return {
        "id": example["id"],
        "label": example["label"],
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
    }


def card(read: int, kept: list[Example], dropped: collections.Counter[str], scenario: dict[str, Any]) -> dict[str, Any]:
    rows = {split: collections.Counter(e["label"] for e in kept if e["split"] == split) for split in SPLITS}
    return {
        "source": scenario["source"].get("path") or scenario["source"]["builtin"],
        "read": read,
        "kept": {split: sum(counts.values()) for split, counts in rows.items()},
        "dropped": dict(dropped),
        "labels": sorted(rows["train"]),
        "answers": [scenario["answer"].format(label=label, text="") for label in sorted(rows["train"])],
        "rows_per_label": {split: dict(sorted(counts.items())) for split, counts in rows.items()},
        "majority_share_of_test": max(rows["test"].values()) / sum(rows["test"].values()),
        "near_duplicates": "no kept text is a near-duplicate of another (MinHash of word trigrams)",
    }


def check_source(path: Path, digests: dict[str, str]) -> None:
    """Raise a UserError where the source isn't what it was when the job was planned."""
    manifest.prove_sources(digests)
    if not digests:
        manifest.prove(path.parent / "manifest.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True, help="the resolved scenario as JSON")
    parser.add_argument(
        "--source", type=Path, required=True, help="the user's file, or documentation.jsonl for a built-in source"
    )
    parser.add_argument("--output-directory", type=Path, required=True)
    arguments = parser.parse_args()
    scenario, out = arguments.recipe["scenario"], arguments.output_directory
    check_source(arguments.source, arguments.recipe["source_digests"])

    examples = read_examples(scenario["source"], arguments.source)
    assign_splits(examples, scenario["split"])
    kept, dropped = select(examples, scenario["rows_per_label"], scenario["near_duplicates"])
    check(kept, scenario)
    for split in SPLITS:
        rows = sorted((e for e in kept if e["split"] == split), key=lambda example: hash_order(example["id"]))
        files.write_jsonl(out / f"{split}.jsonl", [chat(example, scenario) for example in rows])
    described = card(len(examples), kept, dropped, scenario)
    described["sha256"] = {split: files.sha256(out / f"{split}.jsonl") for split in SPLITS}
    files.write_json(out / "card.json", described)
    manifest.record(
        out, arguments.recipe, [arguments.source], [out / "card.json", *(out / f"{split}.jsonl" for split in SPLITS)]
    )
    print(json.dumps(described["kept"]))


if __name__ == "__main__":
    errors.run(main)
