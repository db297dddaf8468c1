"""Compare each form of a run's model with its parent: adapter, merged, ONNX fp32, every other precision.

Logits are compared over the probe, the last positions of held-out rows; perplexity and the
scenario's metric over all test rows; what a package's own tokenizer makes of each prompt with
what the model was trained on. A hop over its budget fails, with the evidence kept, unless the gate
is `warn`; one whose logits aren't finite numbers fails always.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from snaketune.core import errors, files, manifest
from snaketune.core.precisions import backend_of
from snaketune.data.tokens import Rows, read_rows
from snaketune.evaluation.parity import broken, compare_answers, compare_logits, over_budget, without_nan
from snaketune.inference.decoding import Backend, probe_logits
from snaketune.inference.load import load, prove
from snaketune.training.prefix import prefix_beside


def prompt_agreement(backend: Backend, tokens: Rows, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of the chats whose prompt a package's own template and tokenizer turn into the tokens trained on."""
    encode = getattr(backend, "encode", None)
    chats = [(prompt, row["messages"]) for prompt, row in zip(tokens.prompts, rows, strict=True) if "messages" in row]
    if encode is None or not chats:
        return {}
    equal = [list(prompt) == list(encode(messages[:-1])) for prompt, messages in chats]
    return {"prompt_agreement": float(np.mean(equal)), "prompts": len(equal)}


def hops_of(run: Path, tokens: Path, adapter_logits: Path | None, recipe: dict[str, Any]) -> dict[str, Any]:
    """The figures of every hop, by its name."""
    probe, how = recipe["probe"], (recipe["bootstrap_samples"], recipe["confidence"])
    held_out, rows = read_rows(tokens / "test.safetensors"), files.read_jsonl(tokens / "test.jsonl")
    probed = held_out.ids[: probe["rows"]]
    positions = [min(probe["positions"], len(row)) for row in probed]
    merged = load_file(run / "evaluation/torch.logits.safetensors")["logits"]
    hops: dict[str, Any] = {}
    if adapter_logits:
        unmerged = load_file(adapter_logits)["logits"]
        hops["adapter-merged"] = compare_logits(unmerged, merged, positions, *how)
    # fp32 comes first: it is the parent of the others.
    parent, above = merged, "torch"
    for precision in sorted(recipe["precisions"], key=lambda name: name != "fp32"):
        directory = run / "onnx" / precision
        model = directory / "model.onnx"
        backend = None  # frees the last one's weights first
        backend = load(model, prefix_beside(model), recipe["threads"])
        logits = probe_logits(backend, probed, probe["positions"])
        before, after = (
            files.read_jsonl(run / f"evaluation/{name}.predictions.jsonl") for name in (above, backend_of(precision))
        )
        hops["merged-onnx-fp32" if precision == "fp32" else f"onnx-fp32-{precision}"] = {
            **compare_logits(parent, logits, positions, *how),
            **compare_answers(recipe["primary_metric"], before, after, *how),
            **prompt_agreement(backend, held_out, rows),
            "bytes": sum(path.stat().st_size for path in directory.glob("model.onnx*")),
            "share_of_fp32_bytes": (directory / "model.onnx_data").stat().st_size
            / (run / "onnx/fp32/model.onnx_data").stat().st_size,
        }
        if precision == "fp32":
            parent, above = logits, "onnx-fp32"
    return hops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe",
        type=json.loads,
        required=True,
        help='JSON: {"precisions", "probe", "threads", "primary_metric", "budgets": {hop: {figure: limit}}, "gate", …}',
    )
    parser.add_argument("--run-directory", type=Path, required=True)
    parser.add_argument("--tokens-directory", type=Path, required=True)
    parser.add_argument(
        "--adapter-logits", type=Path, nargs="?", help="of base and adapter, unmerged; none for all weights"
    )
    parser.add_argument("--evidence", type=Path, required=True, help="where the figures stay when the gate fails")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    recipe, run = arguments.recipe, arguments.run_directory

    manifest.prove(arguments.tokens_directory / "manifest.json")
    for precision in recipe["precisions"]:
        prove(run / "onnx" / precision / "model.onnx")
    hops = hops_of(run, arguments.tokens_directory, arguments.adapter_logits, recipe)
    faults = {hop: over_budget(hop, found, recipe["budgets"].get(hop, {})) for hop, found in hops.items()}
    useless = [hop for hop, found in hops.items() if broken(found)]
    for hop in useless:
        faults[hop].append(f"{hop}: logits aren't finite numbers")
    wrong = [line for lines in faults.values() for line in lines]
    result = {
        "gate": recipe["gate"],
        "hops": {hop: without_nan(found) for hop, found in hops.items()},
        "over_budget": wrong,
        "over_budget_hops": [hop for hop, lines in faults.items() if lines],
        "without_budget": [hop for hop in hops if not recipe["budgets"].get(hop)],
        "passed": not wrong,
    }
    if useless or (wrong and recipe["gate"] == "fail"):
        files.write_json(arguments.evidence, result)
        arguments.output.unlink(missing_ok=True)
        otherwise = "" if useless else ", raise its budget in the experiment's `parity:`, or set `gate: warn`"
        raise errors.UserError(
            f"{run}: parity is over budget: {'; '.join(wrong)}. Figures: {arguments.evidence}. Mend the hop{otherwise}"
        )
    arguments.evidence.unlink(missing_ok=True)
    files.write_json(arguments.output, result)
    for hop, found in hops.items():
        print(
            f"{hop}: largest logit difference {found['largest_logit_difference']:.2g}, greedy agreement {found['greedy_agreement']:.3f}, KL {found['kl_divergence']:.2g}"
        )


if __name__ == "__main__":
    errors.run(main)
