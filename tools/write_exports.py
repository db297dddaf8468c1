"""Write what each export of finished runs keeps of the torch model, its size and its speed, between the markers of a page."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from safetensors.numpy import load_file

from snaketune.core import files, tables
from snaketune.core.errors import UserError, run
from snaketune.core.paths import run_path
from snaketune.evaluation.metrics import summed
from snaketune.evaluation.parity import compare_answers, compare_logits
from write_figures import write

SAMPLES, CONFIDENCE = 10_000, 0.95


def speed(directory: Path, backend: str) -> dict[str, Any]:
    """Return decode rate, time to the first token and how both were measured: by `benchmark:`, or else at the evaluation."""
    path = directory / "benchmark.json"
    system = "torch-fp32" if backend == "torch" else backend
    if path.exists() and system in (found := files.read_json(path))["systems"]:
        shape = min(found["systems"][system]["shapes"], key=lambda one: (one["batch"], -one["prompt_tokens"]))
        where = f"batch {shape['batch']}, prompts of {shape['prompt_tokens']} tokens, medians of {found['rounds']} rounds by turns"
        rates = shape["decode_tokens_per_second"]["median"], shape["first_token_ms"]["median"]
    else:
        found, where = (
            files.read_json(directory / f"evaluation/{backend}.json"),
            "medians at the evaluation, beside other jobs",
        )
        rates = found["decode_tokens_per_second"], found["latency_p50_ms"]
    seen, threads = found["hardware"], found["threads"]
    how = f"{where}, {threads} thread{'s' * (threads > 1)} of {seen['processor']}, {seen['cores']} cores"
    return {"decode": rates[0], "first": rates[1], "how": how}


def form(directory: Path, backend: str, metric: str) -> dict[str, Any]:
    """Return the figures of one form of a run's model against its torch model, paired by test row."""

    def predicted(name: str) -> list[dict[str, Any]]:
        return files.read_jsonl(directory / f"evaluation/{name}.predictions.jsonl")

    def probed(name: str) -> dict[str, Any]:
        return load_file(directory / f"evaluation/{name}.logits.safetensors")

    rows = predicted(backend)
    found = {"value": summed(rows)[metric], **speed(directory, backend)}
    found["perplexity"] = math.exp(sum(row["nll"] for row in rows) / sum(row["answer_tokens"] for row in rows))
    if backend == "torch":
        return found | {"n": len(rows)}
    parent = probed("torch")
    logits = (parent["logits"], probed(backend)["logits"], parent["positions"].tolist())
    found |= compare_answers(metric, predicted("torch"), rows, SAMPLES, CONFIDENCE)
    found |= compare_logits(*logits, SAMPLES, CONFIDENCE)
    made = files.read_json(directory / f"onnx/{backend.removeprefix('onnx-')}/manifest.json")["files"]
    kept = (".onnx", ".onnx_data", ".onnx.data", ".onnx_adapter")
    return found | {"bytes": sum(entry["bytes"] for name, entry in made.items() if name.endswith(kept))}


def table(results: Path, rows: list[tables.Row], techniques: list[str]) -> str:
    """Return a line for each form of the runs of these techniques, and how they were measured."""
    lines, told = [], []
    metrics = sorted({row["metric"] for row in rows})
    heads = ["scenario", "technique", "precision", *metrics, "against torch", "KL, nats", "perplexity", "bytes of fp32"]
    for cell in dict.fromkeys((row["model"], row["scenario"], row["technique"], int(row["seed"])) for row in rows):
        directory = results / run_path(*cell)
        if cell[2] not in techniques:
            continue
        metric = next(row["metric"] for row in rows if row["scenario"] == cell[1])
        backends = [path.stem for path in (directory / "evaluation").glob("*.json")]
        found = {backend: form(directory, backend, metric) for backend in backends}
        if "onnx-fp32" not in found:
            raise UserError(f"{directory}: sizes are compared with fp32, which it lacks: list fp32 under `precisions`")
        whole = found["onnx-fp32"]["bytes"]
        for backend, one in sorted(found.items(), key=lambda item: -item[1].get("bytes", math.inf)):
            name = "torch" if backend == "torch" else f"`{backend.removeprefix('onnx-')}`"
            change = ["–", "–"]
            if backend != "torch":
                low, high = one["metric_change_ci"]
                change = [f"{one['metric_change']:+.3f} [{low:+.3f}, {high:+.3f}]", f"{one['kl_divergence']:.4f}"]
            values = [f"{one['value']:.3f}" if name == metric else "–" for name in metrics]
            size = f"{one['bytes'] / whole:.3f}" if "bytes" in one else "–"
            figures = [f"{one['perplexity']:.3f}", size, f"{one['decode']:.1f}", f"{one['first']:.0f}"]
            lines.append(f"| {' | '.join([cell[1], f'`{cell[2]}`', name, *values, *change, *figures])} |")
        child = found["onnx-fp32"]
        told.append(f"{cell[0]}, {cell[1]}, seed {cell[3]}: n = {found['torch']['n']} test rows; KL over {child['positions']} positions of {child['rows']} rows; speed: {child['how']}.")  # fmt: skip
    if not lines:
        raise UserError(f"{results}/summary.csv has no run of {', '.join(techniques)}: choose others with --techniques")
    heads += ["decode, tokens/s", "first token, ms"]
    interval = f"Changes have {100 * CONFIDENCE:g} % paired bootstrap intervals over test rows; positive is better."
    return "\n".join(
        [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines, "", " ".join([*dict.fromkeys(told), interval])]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--techniques", nargs="+", default=["lora", "full"], help="whose runs to show (%(default)s)")
    parser.add_argument("--page", type=Path, default=Path("docs/export.md"))
    arguments = parser.parse_args()
    summary = arguments.results / "summary.csv"
    if not summary.exists():
        raise UserError(f"{summary}: no finished run: run `snakemake` first, with the experiment's --configfile")
    written = table(arguments.results, tables.read(summary), arguments.techniques)
    write([arguments.page], {"exports": written})


if __name__ == "__main__":
    run(main)
