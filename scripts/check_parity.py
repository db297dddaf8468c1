"""Compare each form of a run's model with its parent: adapter, merged, ONNX fp32, every other precision.

An adapter shipped for a quantized base is compared with the adapter as trained: nothing was rounded in between.

Reads only what the evaluations wrote. Logits are compared over the probe, the last positions of
held-out rows; perplexity and the scenario's metric over all test rows; and the prompts of a genai
package with the tokens used in training. A conversion step over its budget fails and its figures
are kept, unless the gate is `warn`; a step whose logits aren't finite numbers always fails.
"""

from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from snaketune.core import cli, errors, files, manifest
from snaketune.core.layout import ADAPTER_FILE
from snaketune.core.precisions import backend_of
from snaketune.evaluation.parity import broken, compare_answers, compare_logits, over_budget, what_passes, without_nan


def steps_of(run: Path, exports: list[Path], adapter_logits: Path | None, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of every conversion step, by its name, from a run's ``evaluation/``."""
    how = (recipe["bootstrap_samples"], recipe["confidence"])

    def probed(backend: str) -> dict[str, Any]:
        return load_file(run / f"evaluation/{backend}.logits.safetensors")

    def predicted(backend: str) -> list[dict[str, Any]]:
        return files.read_jsonl(run / f"evaluation/{backend}.predictions.jsonl")

    exported = {path.parent.name: manifest.read(path)["files"] for path in exports}

    def size(precision: str, *names: str) -> int:
        return sum(int(exported[precision][name]["bytes"]) for name in names if name in exported[precision])

    parent, above = probed("torch"), predicted("torch")
    positions = parent["positions"].tolist()
    steps: dict[str, Any] = {}
    trained, answers = parent["logits"], above
    if adapter_logits:
        trained = load_file(adapter_logits)["logits"]
        steps["adapter-merged"] = compare_logits(trained, parent["logits"], positions, *how)
    # fp32 comes first: it is the parent of the others, whose order in the experiment re-runs nothing.
    for precision in sorted(exported, key=lambda name: (name != "fp32", name)):
        backend = backend_of(precision)
        child, below = probed(backend), predicted(backend)
        tokenized = files.read_json(run / f"evaluation/{backend}.json")
        step, first, before = f"onnx-fp32-{precision}", parent["logits"], above
        if precision == "fp32":
            step = "merged-onnx-fp32"
        elif ADAPTER_FILE in exported[precision]:
            step, first, before = "adapter-shipped", trained, answers
        steps[step] = {
            **compare_logits(first, child["logits"], positions, *how),
            **compare_answers(recipe["primary_metric"], before, below, *how),
            **{key: tokenized[key] for key in ("prompt_agreement", "prompts", "stop_agreement") if key in tokenized},
            "bytes": size(precision, "model.onnx", "model.onnx_data", ADAPTER_FILE),
            "share_of_fp32_bytes": size(precision, "model.onnx_data", ADAPTER_FILE) / size("fp32", "model.onnx_data"),
        }
        if precision == "fp32":
            parent, above = child, below
    return steps


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        "primary_metric, budgets (by conversion step, then figure), gate, bootstrap_samples, confidence",
        "--run-directory --output",
        evidence="where the figures stay when the gate fails",
    )
    parser.add_argument("--exports", type=Path, nargs="+", required=True, help="manifest.json of each precision")
    parser.add_argument(
        "--adapter-logits",
        type=Path,
        nargs="?",
        help="probe of base and adapter before merging, if there is an adapter",
    )
    arguments = parser.parse_args()
    recipe, run = arguments.recipe, arguments.run_directory

    steps = steps_of(run, arguments.exports, arguments.adapter_logits, recipe)
    faults = {step: over_budget(step, found, recipe["budgets"].get(step, {})) for step, found in steps.items()}
    useless = [step for step, found in steps.items() if broken(found)]
    for step in useless:
        faults[step].append(f"{step}: logits aren't finite numbers")
    wrong = [line for lines in faults.values() for line in lines]
    result = {
        "gate": recipe["gate"],
        "hops": {step: without_nan(found) for step, found in steps.items()},
        "over_budget": wrong,
        "over_budget_hops": [step for step, lines in faults.items() if lines],
        "without_budget": [step for step in steps if not recipe["budgets"].get(step)],
        "passed": not wrong,
    }
    if useless or (wrong and recipe["gate"] == "fail"):
        files.write_json(arguments.evidence, result)
        arguments.output.unlink(missing_ok=True)
        otherwise = "" if useless else ", raise its budget in the experiment's `parity:`, or set `gate: warn`"
        passes = what_passes(steps, {*result["over_budget_hops"], *result["without_budget"]})
        raise errors.UserError(
            f"{run}: parity is over budget: {'; '.join(wrong)}. {passes} Figures: {arguments.evidence}. Fix the export{otherwise}"
        )
    arguments.evidence.unlink(missing_ok=True)
    files.write_json(arguments.output, result)
    for step, found in steps.items():
        print(
            f"{step}: largest logit difference {found['largest_logit_difference']:.2g}, greedy agreement {found['greedy_agreement']:.3f}, KL {found['kl_divergence']:.2g}"
        )


if __name__ == "__main__":
    errors.run(main)
