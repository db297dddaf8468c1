"""Compare each form of a run's model with its parent: adapter, merged, ONNX fp32, quantized.

The probe is the last positions of held-out rows. A hop over its budget fails, with the
evidence kept beside the output, unless the gate is `warn`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from snaketune import errors, files, manifest
from snaketune.layout import ONNX_FILES
from snaketune.metrics import quality_change
from snaketune.onnx_backend import OnnxBackend
from snaketune.prefix import prefix_beside
from snaketune.scoring import log_softmax, probe_logits
from snaketune.tokens import read_rows

# In float64, all positions of a large vocabulary would take gigabytes.
POSITIONS_AT_ONCE = 64


def compare(parent: np.ndarray, child: np.ndarray) -> dict[str, float]:
    """Largest and mean logit difference, greedy agreement and KL divergence.

    Args:
        parent: logits, (positions, vocabulary).
        child: logits of the same positions.

    Returns:
        ``kl_divergence`` is the mean over positions of KL(parent || child), in nats.
    """
    largest = total = agreed = divergence = 0.0
    for start in range(0, len(parent), POSITIONS_AT_ONCE):
        one, other = (logits[start : start + POSITIONS_AT_ONCE] for logits in (parent, child))
        difference = np.abs(one.astype(np.float64) - other)
        # Unlike max(), this keeps a NaN.
        largest = float(np.maximum(largest, difference.max()))
        total += float(difference.mean(-1).sum())
        agreed += float((one.argmax(-1) == other.argmax(-1)).sum())
        p, q = log_softmax(one), log_softmax(other)
        divergence += float((np.exp(p) * (p - q)).sum())
    return {
        "largest_logit_difference": largest,
        "mean_logit_difference": total / len(parent),
        "greedy_agreement": agreed / len(parent),
        "kl_divergence": divergence / len(parent),
        "positions": len(parent),
    }


def over_budget(hop: str, found: dict[str, Any], budget: dict[str, float]) -> list[str]:
    """A sentence for each figure of a hop that breaks its budget; NaN breaks it."""
    wrong = []
    for name, limit in budget.items():
        if name.startswith("smallest_"):
            value = found[name.removeprefix("smallest_")]
            ok, relation = value >= limit, "at least"
        else:
            value = found[name]
            ok, relation = value <= limit, "at most"
        if not ok:
            wrong.append(f"{hop}: {name.removeprefix('smallest_')} is {value:.3g}, expected {relation} {limit:g}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe",
        type=json.loads,
        required=True,
        help='JSON: {"probe", "threads", "primary_metric", "budgets": {hop: {figure: limit}}, "gate"}',
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
    probe = recipe["probe"]

    manifest.prove(arguments.tokens_directory / "manifest.json")
    for precision in recipe["precisions"]:
        manifest.prove(run / f"onnx/{precision}/manifest.json", *ONNX_FILES[:2])
    rows = read_rows(arguments.tokens_directory / "test.safetensors").ids[: probe["rows"]]
    merged = load_file(run / "evaluation/torch.logits.safetensors")["logits"]
    hops: dict[str, Any] = {}
    if arguments.adapter_logits:
        hops["adapter-merged"] = compare(load_file(arguments.adapter_logits)["logits"], merged)
    metric = {}
    for backend in ("torch", *(f"onnx-{precision}" for precision in recipe["precisions"])):
        metric[backend] = files.read_json(run / f"evaluation/{backend}.json")["metrics"][recipe["primary_metric"]]
    parent = merged
    for precision in sorted(recipe["precisions"], key=lambda name: name != "fp32"):
        model = run / f"onnx/{precision}/model.onnx"
        logits = probe_logits(OnnxBackend(model, recipe["threads"], prefix_beside(model)), rows, probe["positions"])
        size = sum(path.stat().st_size for path in model.parent.glob("model.onnx*"))
        above = "torch" if precision == "fp32" else "onnx-fp32"
        hop = "merged-onnx-fp32" if precision == "fp32" else f"onnx-fp32-{precision}"
        hops[hop] = {
            **compare(parent, logits),
            "metric_change": quality_change(recipe["primary_metric"], metric[above], metric[f"onnx-{precision}"]),
            "bytes": size,
            "share_of_fp32_bytes": (run / f"onnx/{precision}/model.onnx_data").stat().st_size
            / (run / "onnx/fp32/model.onnx_data").stat().st_size,
        }
        parent = logits if precision == "fp32" else parent

    faults = {hop: over_budget(hop, found, recipe["budgets"].get(hop, {})) for hop, found in hops.items()}
    wrong = [line for lines in faults.values() for line in lines]
    result = {
        "gate": recipe["gate"],
        "hops": hops,
        "over_budget": wrong,
        "over_budget_hops": [hop for hop, lines in faults.items() if lines],
        "passed": not wrong,
    }
    if wrong and recipe["gate"] == "fail":
        files.write_json(arguments.evidence, result)
        raise errors.UserError(
            f"{run}: parity is over budget: {'; '.join(wrong)}. Figures: {arguments.evidence}. Mend the hop, raise its budget in the experiment's `parity:`, or set `gate: warn`"
        )
    arguments.evidence.unlink(missing_ok=True)
    files.write_json(arguments.output, result)
    for hop, found in hops.items():
        print(
            f"{hop}: largest logit difference {found['largest_logit_difference']:.2g}, greedy agreement {found['greedy_agreement']:.3f}, KL {found['kl_divergence']:.2g}"
        )


if __name__ == "__main__":
    errors.run(main)
