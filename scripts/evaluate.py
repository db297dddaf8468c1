"""Evaluate a model on a scenario's test split: `torch` (a merged model) or an ONNX file."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from snaketune import errors, files, manifest
from snaketune.layout import MODEL_FILES, ONNX_FILES
from snaketune.metrics import classification_metrics
from snaketune.scoring import Backend, candidate_likelihoods, greedy_speed, probe_logits
from snaketune.tokens import read_candidates, read_rows


def load(model: Path, threads: int) -> Backend:
    """ONNX Runtime for a .onnx file, else torch; each imports only what it needs."""
    if model.suffix == ".onnx":
        from snaketune.onnx_backend import OnnxBackend

        return OnnxBackend(model, threads)
    from snaketune.adapters import load_base
    from snaketune.measure import limit_threads
    from snaketune.torch_backend import TorchBackend

    limit_threads(threads)
    return TorchBackend(load_base(model.parent, "fp32"))


def predictions(scores: np.ndarray, labels: list[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for row, score in zip(rows, scores, strict=True):
        best = int(score.argmax())
        made.append(
            {
                "id": row["id"],
                "label": row["label"],
                "prediction": labels[best],
                "score": float(labels[best] == row["label"]),
                "log_likelihood": round(float(score[labels.index(row["label"])]), 6),
            }
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument("--model", type=Path, required=True, help="model.safetensors of a merged model, or model.onnx")
    parser.add_argument("--tokens-directory", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="evaluation/BACKEND.json; predictions go beside it")
    parser.add_argument("--logits", type=Path, help="also write the logits of the parity probe")
    arguments = parser.parse_args()
    recipe = arguments.recipe
    # Of a temporary ONNX model only these two files are sure to be there still.
    used = ONNX_FILES[:2] if arguments.model.suffix == ".onnx" else MODEL_FILES
    manifest.prove(arguments.model.parent / "manifest.json", *used)
    manifest.prove(arguments.tokens_directory / "manifest.json")

    backend = load(arguments.model, recipe["threads"])
    tokens = read_rows(arguments.tokens_directory / "test.safetensors")
    labels, candidates = read_candidates(arguments.tokens_directory / "candidates.json")
    rows = files.read_jsonl(arguments.tokens_directory / "test.jsonl")
    scores = candidate_likelihoods(backend, tokens.prompts, candidates)
    predicted = predictions(scores, labels, rows)
    rate, first = greedy_speed(backend, tokens.prompts[: recipe["speed_prompts"]], recipe["speed_tokens"])

    if arguments.logits:
        probe = recipe["probe"]
        with files.written_whole(arguments.logits) as aside:
            save_file({"logits": probe_logits(backend, tokens.ids[: probe["rows"]], probe["positions"])}, aside)
    files.write_jsonl(arguments.output.with_suffix(".predictions.jsonl"), predicted)
    metrics = classification_metrics([row["label"] for row in predicted], [row["prediction"] for row in predicted])
    files.write_json(
        arguments.output,
        {
            "metrics": metrics,
            "n": len(predicted),
            "decode_tokens_per_second": rate,
            "latency_p50_ms": first,
            "hardware": manifest.hardware(),
            "threads": recipe["threads"],
        },
    )
    print(
        f"{arguments.output.stem}: "
        + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        + f", n = {len(predicted)}"
    )


if __name__ == "__main__":
    errors.run(main)
