"""Write the table of docs/claims.md: what papers claim, compared with measurements under the same definition.

Every figure is computed from files of the checkout: one seed of SmolLM2-135M in benchmarks/smollm2-one-seed, and the
sizes that papers give for their models.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from parts import ROOT, Parts
from snaketune.config.technique import Technique
from snaketune.config.validation import validated
from snaketune.core import errors, files
from snaketune.dag.estimates import adapter_parameters, targets
from snaketune.dag.shape import Shape
from snaketune.reporting.comparison import compare, judge
from snaketune.reporting.difference import NOT_SHOWN, Difference, difference
from snaketune.reporting.numbers import measured
from snaketune.reporting.params import SummaryParams
from snaketune.reporting.results import Results, state_bytes
from write_figures import write

MODEL, SCENARIO = "smollm2-135m-instruct", "classification"
HEADS = ("claim", "source", "its scale", "measured here", "95 % interval", "verdict")
# GPT-3: 96 layers of width 12,288, of which LoRA at rank 4 changed queries and values.
GPT3 = Shape(12288, 96, 49152, 96, 96, 50257, 2048, True)
Row = tuple[str, str, str, str, str, str]


class Measured:
    """One seed of every technique on SmolLM2."""

    def __init__(self, directory: Path):
        parts = Parts(ROOT / "config/experiments/smollm2.yaml", ROOT / "benchmarks/smollm2-one-seed")
        self.matrix = parts.matrix
        cells = [list(cell) for cell in parts.restore(directory, exports=False)]
        self.results = Results(directory, cast("SummaryParams", self.matrix.summary_recipe() | {"cells": cells}))
        self.compared = compare(self.results, MODEL, SCENARIO)
        self.shape = Shape.of(self.matrix.models[MODEL].sizes)

    def cell(self, technique: str) -> list[Any]:
        return [MODEL, SCENARIO, technique, 0 if technique == "base" else 1]

    def spent(self, technique: str) -> Any:
        return self.results.resources(self.cell(technique))

    def states(self, technique: str) -> int:
        """Return the bytes of weights, gradients and optimizer states of the fullest rank."""
        return max(map(state_bytes, self.spent(technique)["ranks"]))

    def kept(self, technique: str, backend: str = "torch") -> int:
        return self.results.artifact_bytes(self.cell(technique), backend)

    def parameters(self, technique: str) -> int:
        place = ROOT / f"config/techniques/{technique}.yaml"
        recipe = validated(Technique, files.read_yaml(place), place).recipe(self.matrix.families[MODEL])
        return adapter_parameters(self.shape, recipe["adapter"])

    def gap(self, a: str, b: str) -> Difference:
        """Return a − b in accuracy, whose interval holds for all pairs of techniques at once."""
        return difference(self.compared, a, b)

    def loss(self, technique: str, backend: str) -> Difference:
        """Return an export's accuracy minus the model's, with its paired interval over test rows."""
        cell, results = self.cell(technique), self.results
        systems = {name: [results.statistics(cell, name)] for name in (backend, "torch")}
        (pair,) = judge(results.metric[SCENARIO], systems, results.samples, results.confidence)[1]
        return Difference(pair.difference, pair.ci_low, pair.ci_high, higher_is_better=True)

    def bits(self) -> tuple[float, float]:
        """Return the bits that QLoRA holds of each quantized weight, and those of them that are bitsandbytes' two tables of each layer.

        They are all bytes without those of embeddings, norms and the adapter. A table has 16 or 256 numbers.
        """
        held = self.spent("qlora")["ranks"][0]["weight_bytes"]
        whole = self.spent("full")["total_parameters"]
        changed = targets(self.shape, self.matrix.technique_recipe(MODEL, "qlora")["adapter"])
        linear = self.shape.layers * sum(inputs * outputs for inputs, outputs in changed)
        own = held - 4 * (whole - linear + self.spent("qlora")["trainable_parameters"])
        return 8 * own / linear, 32 * (16 + 256) * self.shape.layers * len(changed) / linear


NOT = "not testable at this scale"
EXACT = "exact"
SCALE = "; one seed, far smaller model"


def value(found: Difference) -> str:
    return measured(found.value, True)


def interval(found: Difference) -> str:
    return f"[{measured(found.low, True)}, {measured(found.high, True)}]"


def better(found: Difference) -> str:
    """Return the verdict on a claim that a is better than b."""
    return {"better": "holds here", "worse": "the opposite here"}.get(found.verdict, found.verdict) + SCALE


def on_par(found: Difference) -> str:
    """Return the verdict on a claim that a is as good as b or better."""
    return {"better": "holds here: better", "worse": "not here: worse"}.get(found.verdict, found.verdict) + SCALE


def equal(found: Difference) -> str:
    """Return the verdict on a claim that a and b are the same: on these rows, without any difference."""
    if (found.low, found.value, found.high) == (0, 0, 0):
        return "holds"
    return NOT_SHOWN if found.verdict == NOT_SHOWN else "differs here"


def near(found: float, claimed: float, tolerance: float, holds: str = "holds", differs: str = "differs") -> str:
    """Return ``holds`` if a figure is the claimed one, give or take a share of it."""
    return holds if abs(found / claimed - 1) <= tolerance else differs


def at_least(found: float, claimed: float, holds: str = "holds") -> str:
    return holds if found >= claimed else "less here"


def keeps(losses: dict[str, Difference]) -> str:
    """Return the verdict on the claim that an export keeps quality."""
    lost = [name for name, found in losses.items() if found.verdict == "worse"]
    if not lost:
        return "no loss shown at 135M"
    return f"not at 135M with round-to-nearest: accuracy drops for {' and '.join(lost)}"


def rows(of: Measured) -> list[Row]:
    """Return the table's lines."""
    full, lora = of.spent("full"), of.spent("lora")
    gpt3 = adapter_parameters(GPT3, {"type": "lora", "options": {"r": 4, "target_modules": ["q_proj", "v_proj"]}})
    share = full["trainable_parameters"] / lora["trainable_parameters"]
    states = of.states("full") / of.states("lora")
    zero = of.states("zero3") / of.states("deepspeed")
    kept, int4 = of.kept("full") / of.kept("lora"), of.kept("full", "onnx-fp32") / of.kept("full", "onnx-int4")
    merged = of.kept("lora", "onnx-fp32") / of.kept("full", "onnx-fp32")
    vera, ia3 = of.parameters("lora") / of.parameters("peft-vera"), of.spent("peft-ia3")
    qlora = of.states("lora") / of.states("qlora")
    dora = of.spent("dora")["trainable_parameters"] / lora["trainable_parameters"] - 1
    bits, tables = of.bits()
    par, qmatch, dbetter, ibetter, same = (
        of.gap(*pair)
        for pair in (("lora", "full"), ("qlora", "lora"), ("dora", "lora"), ("peft-ia3", "full"), ("zero3", "full"))
    )
    lost = {"full": of.loss("full", "onnx-int4"), "LoRA": of.loss("lora", "onnx-int4")}
    tuned = 100 * ia3["trainable_parameters"] / full["trainable_parameters"]
    return [
        ("LoRA trains 10,000 times fewer parameters", "arXiv 2106.09685", "GPT-3 175B, rank 4 on queries and values", f"{175e9 / gpt3:,.0f} times fewer by our count for that model; {share:,.0f} times fewer on SmolLM2, rank 8 on all linear layers", EXACT, near(175e9 / gpt3, 10_000, 0.1, "holds there", "differs there") + ("; less on a small model" if share < 10_000 else "; here too")),
        ("LoRA: 3 times less GPU memory", "arXiv 2106.09685", "GPT-3 175B with Adam", f"weights, gradients and optimizer states: {states:.2f} times less", EXACT, at_least(states, 3, "holds for states")),
        ("LoRA's checkpoint is 10,000 times smaller", "arXiv 2106.09685", "GPT-3 175B: 350 GB to 35 MB", f"{kept:,.0f} times: {of.kept('full') / 1e6:,.0f} to {of.kept('lora') / 1e6:.1f} MB", EXACT, near(kept, share, 0.05, "as for parameters", "not as for parameters")),
        ("LoRA on par with or better than full fine-tuning", "arXiv 2106.09685", "RoBERTa, DeBERTa, GPT-2, GPT-3", f"LoRA vs. full: accuracy {value(par)}", interval(par), on_par(par)),
        ("LoRA adds no latency: it is merged", "arXiv 2106.09685", "any", f"after merging, its ONNX file is {merged:.4f} times the size of full's", EXACT, near(merged, 1, 0.001, "holds: no layer is added")),
        ("QLoRA: NF4 with double quantization takes 4.127 bits per weight", "arXiv 2305.14314", "any", f"{bits:.3f} bits held per quantized weight, of which {tables:.3f} are per-layer tables", EXACT, near(bits - tables, 4.127, 0.0002)),
        ("QLoRA: 65B in 48 GB instead of 780", "arXiv 2305.14314", "LLaMA 65B on a GPU", f"states {qlora:.2f} times smaller than LoRA's in fp32; embeddings stay in fp32, a large share of a small model", EXACT, NOT),
        ("QLoRA matches 16-bit fine-tuning", "arXiv 2305.14314", "LLaMA 7B to 65B", f"QLoRA vs. LoRA in fp32: accuracy {value(qmatch)}", interval(qmatch), on_par(qmatch) + "; this base lies on a 4-bit grid"),
        ("DoRA consistently outperforms LoRA", "arXiv 2402.09353", "LLaMA 7B to 13B: +1.0 to +4.4 percentage points", f"DoRA vs. LoRA: accuracy {value(dbetter)}", interval(dbetter), better(dbetter)),
        ("DoRA trains barely more parameters than LoRA", "arXiv 2402.09353", "LLaMA 7B: 0.84 % of all parameters, LoRA 0.83 %", f"{100 * dora:.1f} % more than LoRA of the same rank, 8", EXACT, ("holds" if dora < 0.1 else "differs") + ": one magnitude per output; the smaller the rank, the larger its share"),
        ("(IA)³ trains 0.01 % of the parameters", "arXiv 2205.05638", "T0 3B", f"{tuned:.2f} %", EXACT, near(tuned, 0.01, 0.5, "holds", "more here" if tuned > 0.01 else "less here") + "; the share falls with width"),
        ("(IA)³ is stronger than full fine-tuning with few examples", "arXiv 2205.05638", "T0 3B, few-shot", f"(IA)³ vs. full: accuracy {value(ibetter)}", interval(ibetter), better(ibetter) + ", not few-shot"),
        ("VeRA trains 10 times fewer parameters than LoRA", "arXiv 2310.11454, v1", "RoBERTa, GPT-2, LLaMA 7B", f"{vera:.1f} times: rank 256 against LoRA's rank 8", EXACT, at_least(vera, 10)),
        ("VeRA performs on par with LoRA", "arXiv 2310.11454", "GLUE, E2E, LLaMA 7B and 13B", "not in this experiment", "–", "not measured"),
        ("PiSSA converges faster than LoRA and ends better", "arXiv 2404.02948", "184M to 70B", "not in this experiment; same parameter shapes as LoRA, so the same count", "–", "not measured"),
        ("rsLoRA: higher ranks learn more", "arXiv 2312.03732", "LLaMA 2 7B, ranks to 2,048", "not in this experiment", "–", "not measured"),
        ("ZeRO-3 divides model states by the number of ranks", "arXiv 1910.02054", "to 400 GPUs", f"each of 2 ranks holds {zero:.3f} times what DeepSpeed holds on one; 1, 2 and 4 ranks within 0.1 % of the formulas ([Scale](scale.md))", EXACT, near(zero, 0.5, 0.01)),
        ("ZeRO-1 and ZeRO-2: 4 and 8 times less", "arXiv 1910.02054", "mixed precision with Adam, 16 bytes per weight, many ranks", "in fp32 DeepSpeed holds 20 bytes per weight, including a second copy of the weight: by the same formulas, at most 2.5 and 5 times less", EXACT, "another definition"),
        ("ZeRO computes the same updates", "arXiv 1910.02054", "any", f"ZeRO-3 vs. full: accuracy {value(same)}", interval(same), equal(same)),
        ("ONNX Runtime's int4 weights: 8 times smaller, but for scales", "MatMulNBits, blocks of 32", "any", f"ONNX file {int4:.1f} times smaller than in fp32", EXACT, near(int4, 8, 0.15)),
        ("int4 keeps quality", "model cards of Phi-3-mini", "3.8B", f"int4 vs. torch: accuracy {', '.join(f'{value(one)} for {name}' for name, one in lost.items())}", ", ".join(map(interval, lost.values())), keeps(lost)),
        ("int4 is up to 10 times faster than PyTorch", "model card of Phi-3-mini-4k-instruct-onnx", "A100", "on CPUs: [Speed](speed.md)", "–", NOT),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/claims.md", help="(%(default)s)")
    page = parser.parse_args().page
    with tempfile.TemporaryDirectory() as directory:
        lines = [HEADS, ["---"] * len(HEADS), *rows(Measured(Path(directory)))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    write([page], {"claims": table})


if __name__ == "__main__":
    errors.run(main)
