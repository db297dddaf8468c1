"""Write what each export of an experiment's finished runs keeps of the torch model, its size, its speed and the goals.

Runs that aren't finished are named. The tables stand between the markers ``exports`` and ``kinds`` of a page.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from safetensors.numpy import load_file
from snakemake.utils import update_config

from snaketune.core import files
from snaketune.core.errors import UserError, run
from snaketune.core.paths import Cell, export_path, run_path, shipped_path
from snaketune.core.precisions import backend_of
from snaketune.dag.recipes import Recipes
from snaketune.evaluation.metrics import summed
from snaketune.evaluation.parity import compare_answers, compare_logits
from snaketune.platforms.registry import read_matrix
from write_figures import write

ROOT = Path(__file__).parents[1]
KEPT = (".onnx", ".onnx_data", ".onnx_adapter")
Figures = dict[str, Any]
# What is measured, by its name in the table, and what it has to be.
SHIPPED_AS_TRAINED = "trained on the export: change of the metric from training to shipping", "holds 0, within 0.005"
SHIPPED_AHEAD = "trained on the export, against trained on fp32 and then quantized to it", "interval above 0"
AUTO_BYTES, AUTO_KL = ("`auto`: bytes of fp32", "≤ 0.30"), ("`auto`: KL divergence, nats", "≤ 0.02")
AUTO_CHANGE = "`auto`: change of the metric", "within 0.01"
AUTO_DECODE = "`genai-auto`: decode rate over that of `genai-int4`", "≥ 0.8"
INT8_CHANGE = "the best of 8 bits: change of the metric", "within 0.01"


class Measured:
    """The finished runs of an experiment, and their figures."""

    def __init__(self, matrix: Recipes, results: Path):
        self.matrix, self.results = matrix, results
        evaluation = matrix.experiment.evaluation
        self.how = evaluation.bootstrap_samples, evaluation.confidence
        tuned = [cell for cell in matrix.cells if cell[2] != "base"]
        self.cells = [cell for cell in tuned if self.file(cell, "parity.json").exists()]
        self.missing = [cell for cell in tuned if cell not in self.cells]
        self.forms = {cell: {name: self._form(cell, name) for name in self._names(cell)} for cell in self.cells}

    def file(self, cell: Cell, name: str) -> Path:
        return self.results / run_path(*cell) / name

    def metric(self, cell: Cell) -> str:
        return self.matrix.scenarios[cell[1]].primary_metric

    def predicted(self, cell: Cell, backend: str) -> list[Figures]:
        return files.read_jsonl(self.file(cell, f"evaluation/{backend}.predictions.jsonl"))

    def _names(self, cell: Cell) -> list[str]:
        precisions = self.matrix.precisions_of(cell[2])
        if "fp32" not in precisions:
            raise UserError(
                f"{self.file(cell, '')}: sizes are compared with fp32, which it lacks: list fp32 under `precisions`"
            )
        return ["torch", *precisions]

    def _form(self, cell: Cell, name: str) -> Figures:
        """Return the figures of one form of a run's model against its torch model, paired by test row."""
        backend = name if name == "torch" else backend_of(name)
        rows = self.predicted(cell, backend)
        found = {"value": summed(rows)[self.metric(cell)], "n": len(rows), **self._speed(cell, backend)}
        found["perplexity"] = math.exp(sum(row["nll"] for row in rows) / sum(row["answer_tokens"] for row in rows))
        if name == "torch":
            return found
        parent, child = (
            load_file(self.file(cell, f"evaluation/{one}.logits.safetensors")) for one in ("torch", backend)
        )
        found |= compare_answers(self.metric(cell), self.predicted(cell, "torch"), rows, *self.how)
        found |= compare_logits(parent["logits"], child["logits"], parent["positions"].tolist(), *self.how)
        return found | {"bytes": sum(map(self._bytes, self._directories(cell, name)))}

    def _directories(self, cell: Cell, name: str) -> Iterator[Path]:
        """Yield where a form lies: an adapter's base too."""
        calibrated = self.matrix.calibrated
        yield self.results / export_path(*cell, precision=name, calibrated=calibrated)
        if self.matrix.shipped.get(cell[2]) == name:
            yield self.results / shipped_path("switchable", *cell[:2], precision=name, calibrated=calibrated)

    @staticmethod
    def _bytes(directory: Path) -> int:
        made = files.read_json(directory / "manifest.json")["files"]
        return sum(entry["bytes"] for name, entry in made.items() if name.endswith(KEPT))

    def _speed(self, cell: Cell, backend: str) -> Figures:
        """Return decode rate, time to the first token and how both were measured: by `benchmark:`, or else at the evaluation."""
        path = self.file(cell, "benchmark.json")
        system = "torch-fp32" if backend == "torch" else backend
        if path.exists() and system in (found := files.read_json(path))["systems"]:
            shape = min(found["systems"][system]["shapes"], key=lambda one: (one["batch"], -one["prompt_tokens"]))
            where = f"batch {shape['batch']}, prompts of {shape['prompt_tokens']} tokens, medians of {found['rounds']} interleaved rounds"
            rates = shape["decode_tokens_per_second"]["median"], shape["first_token_ms"]["median"]
        else:
            found = files.read_json(self.file(cell, f"evaluation/{backend}.json"))
            where = "medians during evaluation, with other jobs running"
            rates = found["decode_tokens_per_second"], found["latency_p50_ms"]
        seen, threads = found["hardware"], found["threads"]
        how = f"{where}, {threads} thread{'s' * (threads > 1)} of {seen['processor']}, {seen['cores']} cores"
        return {"decode": rates[0], "first": rates[1], "how": how}

    def counterpart(self, cell: Cell) -> Cell | None:
        """Return the finished run that differs only in that its base was fp32, and is exported to what this one is trained on."""
        techniques = self.matrix.techniques
        own, export = techniques[cell[2]], self.matrix.shipped[cell[2]]
        others = (
            (*cell[:2], name, cell[3])
            for name, one in techniques.items()
            if one.base_precision == "fp32" and one.adapter == own.adapter
        )
        return next((other for other in others if export in self.forms.get(other, {})), None)


def with_interval(found: Figures) -> str:
    low, high = found["metric_change_ci"]
    return f"{found['metric_change']:+.3f} [{low:+.3f}, {high:+.3f}]"


def table(measured: Measured) -> str:
    """Return a line for each form of the finished runs, and how they were measured."""
    lines, told = [], []
    metrics = sorted({measured.metric(cell) for cell in measured.cells})
    for cell, found in measured.forms.items():
        for name, one in sorted(found.items(), key=lambda item: -item[1].get("bytes", math.inf)):
            values = [f"{one['value']:.3f}" if name == measured.metric(cell) else "–" for name in metrics]
            change, size = ["–", "–"], "–"
            if name != "torch":
                change = [with_interval(one), f"{one['kl_divergence']:.4f}"]
                size = f"{one['bytes'] / found['fp32']['bytes']:.3f}"
            figures = [f"{one['perplexity']:.3f}", size, f"{one['decode']:.1f}", f"{one['first']:.0f}"]
            form = "torch" if name == "torch" else f"`{name}`"
            lines.append(f"| {' | '.join([cell[1], f'`{cell[2]}`', form, *values, *change, *figures])} |")
        child = found["fp32"]
        told.append(f"{cell[0]}, {cell[1]}, seed {cell[3]}: n = {child['n']} test rows; KL over {child['positions']} positions of {child['rows']} rows; speed: {child['how']}.")  # fmt: skip
    heads = ["scenario", "technique", "precision", *metrics, "change from torch", "KL, nats", "perplexity"]
    heads += ["bytes of fp32", "decode, tokens/s", "first token, ms"]
    told.append(f"Changes have {100 * measured.how[1]:g} % paired bootstrap intervals over test rows; positive is better. An adapter's bytes include its base.")  # fmt: skip
    if measured.missing:
        told.append(f"**Not complete**: {', '.join('/'.join(cell[1:3]) for cell in measured.missing)} aren't finished.")
    text = [*of_table(heads, lines), "", " ".join(dict.fromkeys(told))]
    if reached := list(goals(measured)):
        text += ["", *of_table(["goal", "expected", "scenario", "technique", "measured", "reached"], reached)]
    return "\n".join(text)


def of_table(heads: list[str], lines: list[str]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]


def goals(measured: Measured) -> Iterator[str]:
    """Yield a line for each goal and run: what was expected, what was measured, and whether that reaches it."""
    for cell, found in measured.forms.items():

        def line(goal: tuple[str, str], value: str, reached: bool, cell: Cell = cell) -> str:
            return f"| {' | '.join([*goal, cell[1], f'`{cell[2]}`', value, 'yes' if reached else '**no**'])} |"

        if export := measured.matrix.shipped.get(cell[2]):
            low, high = found[export]["metric_change_ci"]
            near = low <= 0 <= high and abs(found[export]["metric_change"]) <= 0.005
            yield line(SHIPPED_AS_TRAINED, with_interval(found[export]), near)
            if other := measured.counterpart(cell):
                before, after = (measured.predicted(one, backend_of(export)) for one in (other, cell))
                ahead = compare_answers(measured.metric(cell), before, after, *measured.how)
                value = f"{with_interval(ahead)}; log perplexity {ahead['perplexity_change']:+.3f} [{', '.join(f'{end:+.3f}' for end in ahead['perplexity_change_ci'])}]"
                yield line(SHIPPED_AHEAD, value, ahead["metric_change_ci"][0] > 0)
        if auto := found.get("auto"):
            share = auto["bytes"] / found["fp32"]["bytes"]
            yield line(AUTO_BYTES, f"{share:.3f}", share <= 0.3)
            yield line(AUTO_KL, f"{auto['kl_divergence']:.4f}", auto["kl_divergence"] <= 0.02)
            yield line(AUTO_CHANGE, with_interval(auto), auto["metric_change"] >= -0.01)
        if {"genai-auto", "genai-int4"} <= found.keys():
            ratio = found["genai-auto"]["decode"] / found["genai-int4"]["decode"]
            yield line(AUTO_DECODE, f"{ratio:.2f}", ratio >= 0.8)
        if eights := [name for name in found if name.startswith("int8")]:
            best = max(eights, key=lambda name: found[name]["metric_change"])
            yield line(INT8_CHANGE, f"`{best}` {with_interval(found[best])}", found[best]["metric_change"] >= -0.01)


def kinds(measured: Measured) -> str:
    """Return what each kind of layer alone loses at each number of bits, and what `auto` chose; empty if nothing did."""
    lines, told = [], []
    for cell in measured.cells:
        if "auto" not in measured.matrix.precisions_of(cell[2]):
            continue
        chosen = files.read_json(measured.file(cell, "onnx/auto/manifest.json"))["recipe"]["chosen"]
        for kind, by_bits in chosen["sensitivity"].items():
            losses = (by_bits.get(bits, {}).get("kl_divergence") for bits in ("4", "8"))
            values = [f"{loss['mean']:.4f}, {loss['upper']:.4f}" if loss else "–" for loss in losses]
            words = [cell[1], f"`{cell[2]}`", kind.replace("_", " "), *values, str(chosen["bits"][kind])]
            lines.append(f"| {' | '.join(words)} |")
        [(name, predicted)] = chosen["predicted"].items()
        proven = chosen["proven"][name]
        told.append(f"{cell[1]}, `{cell[2]}`: predicted {predicted:.3g}, measured {proven['mean']:.3g} (up to {proven['upper']:.3g}) on {chosen['validation_rows']} validation rows; choices tried: {chosen['tried']}.")  # fmt: skip
    heads = ["scenario", "technique", "kind", "4 bits", "8 bits", "chosen"]
    return "\n".join([*of_table(heads, lines), "", " ".join(told)]) if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--experiment", type=Path, default=ROOT / "config/experiments/smollm2-exports.yaml")
    parser.add_argument("--page", type=Path, default=Path("docs/export.md"))
    arguments = parser.parse_args()
    config = files.read_yaml(ROOT / "config/config.yaml")
    update_config(config, files.read_yaml(arguments.experiment))
    measured = Measured(read_matrix(config, Path(), ROOT), arguments.results)
    if not measured.cells:
        raise UserError(
            f"{arguments.results}: no run of {arguments.experiment} is finished: make one first, `make export-table PART=classification/lora`"
        )
    figures = {"exports": table(measured), "kinds": kinds(measured)}
    write([arguments.page], {name: text for name, text in figures.items() if text})


if __name__ == "__main__":
    run(main)
