"""Score a hosted model's answers with the metrics of every other backend.

A service gives no likelihood of the reference answers, so perplexity isn't measured; the predicted label
is what the model writes, whereas local backends choose the most likely label.
"""

from typing import Any

from snaketune.core import cli, errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.evaluation.metrics import statistics, summed


def predictions(
    rows: list[dict[str, Any]],
    answers: list[dict[str, Any]],
    task: str,
    decoding: dict[str, Any],
    labels: dict[str, str],
) -> list[dict[str, Any]]:
    """Return each test row with its answer and the statistics of its metrics."""
    predicted = []
    for row, answer in zip(rows, answers, strict=True):
        entry = {
            "id": row["id"],
            "reference": row["reference"],
            "prediction": labels.get(answer["prediction"], answer["prediction"]),
            "well_formed": answer["well_formed"],
        }
        prompt = row["messages"][-2]["content"]
        predicted.append({**entry, "statistics": statistics(task, {**entry, "prompt": prompt}, decoding)})
    return predicted


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "task",
        "--data-directory",
        answers="answers from ask_hosted.py",
        output="evaluation/hosted.json; predictions go next to it",
    ).parse_args()
    data, task = arguments.data_directory, arguments.recipe["task"]

    manifest.prove(data / "manifest.json", "test.jsonl", "card.json", "train.jsonl")
    card = files.read_json(data / "card.json")
    decoding = {
        "candidates": card["labels"],
        "training": tuple(row["reference"] for row in files.read_jsonl(data / "train.jsonl")),
    }
    labels = dict(zip((answer.strip() for answer in card["answers"]), card["labels"], strict=True))
    rows, answers = files.read_jsonl(data / "test.jsonl"), files.read_jsonl(arguments.answers)
    if [row["id"] for row in rows] != [answer["id"] for answer in answers]:
        raise UserError(f"{arguments.answers} doesn't answer {data / 'test.jsonl'}: delete it and run snakemake again")
    predicted = predictions(rows, answers, task, decoding, labels)
    metrics = summed(predicted)
    # The keys of every other evaluation; the speed and hardware of a service can't be measured.
    empty = dict.fromkeys(("decode_tokens_per_second", "latency_p50_ms", "hardware", "threads"))
    files.write_jsonl(arguments.output.with_suffix(".predictions.jsonl"), predicted)
    files.write_json(arguments.output, {"metrics": metrics, "n": len(predicted), **empty})
    print("hosted: " + ", ".join(f"{name} {found:.3f}" for name, found in metrics.items()) + f", n = {len(predicted)}")


if __name__ == "__main__":
    errors.run(main)
