"""The published comparison that this project measures: its claims, and how each is measured.

The claims are a table of six columns, each answered yes or no, as it was published and as its page
reads since it was corrected. Which technique stands for a column was fixed before any result.
"""

from dataclasses import dataclass
from typing import Any

# DeepSpeed's own contribution besides ZeRO is the offload of optimizer states (arXiv 2101.06840).
COLUMNS = {
    "LoRA": "lora", "QLoRA": "qlora", "PEFT": "peft-ia3", "DeepSpeed": "deepspeed", "ZeRO": "zero3", "DoRA": "dora",
}  # fmt: skip
REFERENCE = "full"
# Scenarios that are one of a row's with more test rows.
STANDS_FOR = {"areas-1000": "classification", "qa-500": "qa"}
SHOWN = (
    "the difference from the untuned model, in the scenario's primary metric on at least 20 test rows, has an interval "
    "(simultaneous over all comparisons of the scenario) that excludes zero on the better side; with one seed that is "
    "said of the models in hand, over test rows, and with several of the technique, over rows and seeds"
)


@dataclass(frozen=True)
class Row:
    """A claim; ``published`` and ``corrected`` hold Y or N for each column."""

    claim: str
    published: str
    corrected: str
    scenarios: tuple[str, ...] = ()
    rule: str = f"yes if {SHOWN}"


ROWS = {
    "adapt": Row("adapt a pre-trained LLM to a task or domain", "YYYYYY", "YYYYYY", ("domain",)),
    "nlp": Row(
        "NLP tasks (text classification, named-entity recognition, machine translation)",
        "YYYYYY",
        "YYYYYY",
        ("classification", "ner", "translation"),
        f"yes if in each of the three scenarios {SHOWN}",
    ),
    "qa": Row("question answering", "YYYYYY", "YYYYYY", ("qa",)),
    "chat": Row("human-like chat responses", "YYYYYY", "YYYYYY", ("chat",)),
    "music": Row("music, art or other creative generation", "YYYYYY", "YYYYYY", ("music",)),
    "cost": Row(
        "reduces computational and financial cost",
        "YYNYYN",
        "YYYYYY",
        rule="yes if training occupies fewer core-seconds for each token (seconds × ranks × threads / tokens) than full, "
        "in every round",
    ),
    "memory": Row(
        "reduces memory use",
        "NYNYYY",
        "YYYYYY",
        rule="yes if the largest rank holds fewer bytes of weights, gradients and optimizer states than full's, and its "
        "peak beyond what the imports take is below full's in every round; of an offloaded optimizer without a GPU, if the "
        "states that would stay on the GPU are fewer bytes than all of full's",
    ),
    "parameters": Row(
        "fewer parameters trained", "NYYNNY", "YYYNNY", rule="yes if fewer parameters are trained than by full"
    ),
    "aggregate": Row(
        "memory-efficient data parallelism over the GPUs' aggregate memory",
        "NNNYYY",
        "NNNYYN",
        rule="yes if the weights, gradients and optimizer states of the largest rank shrink with every doubling of the ranks",
    ),
}

# Why a measured cell differs from the page: by row and column, or else by row and verdict.
REASONS = {
    ("nlp", "no"): "Classification and translation gain; named entities decide. Their gain is positive, but not by more than 300 test "
    "rows can show: to name an entity is to copy words from the prompt, which a model of 2.6 million parameters, pre-trained "
    "on 1.5 million tokens, hardly does, and adapters leave its embeddings as they are. It says nothing of larger models.",
    ("cost", "PEFT"): "Frozen weights need no gradients of their own, which are a third of the operations.",
    ("cost", "DeepSpeed"): "It computes what full computes, so no time is saved where memory isn't short. What it saves is the "
    "larger GPU that optimizer states would need.",
    ("cost", "ZeRO"): "It divides states and not operations, and gathers all weights for each pass besides. What it saves is the "
    "larger GPU that a model would need.",
    ("cost", "DoRA"): "It makes each layer's weights and their norms anew in every step, however few tokens a step has: a batch of "
    "16 short rows hardly covers that, as the interval shows. The runs were made before snaketune had a faster way to "
    "compute DoRA (docs/speed.md).",
    ("memory", "yes"): "Frozen weights have neither gradients nor optimizer states, three quarters of full's.",
    ("memory", "ZeRO"): "Each of two ranks holds half of the states, but ZeRO-3 gathers weights through buckets of up to a gigabyte, "
    "whatever the model's size: more than is saved of so small a model and 8 short rows.",
    ("parameters", "LoRA"): "Only the factors are trained, by definition.",
    ("aggregate", "DoRA"): "It is an adapter: data parallelism copies all weights to every rank, whatever is trained.",
}  # fmt: skip


def claimed(row: Row, column: str) -> dict[str, str]:
    """Return what the page says about a column, as published and as corrected: yes or no."""
    number = list(COLUMNS).index(column)
    return {key: {"Y": "yes", "N": "no"}[getattr(row, key)[number]] for key in ("published", "corrected")}


def differs_from(cell: dict[str, Any]) -> list[str]:
    """Return which of ``published`` and ``corrected`` a measured cell contradicts."""
    if cell["measured"] == "not-measured":
        return []
    return [key for key in ("published", "corrected") if cell[key] != cell["measured"]]


def vanishes(cell: dict[str, Any]) -> bool:
    """Tell if the estimate for a model of the size that people tune is what the page says, and not what was measured."""
    expected = cell["expected"] and cell["expected"]["verdict"]
    claims = differs_from(cell)
    return bool(claims) and expected != cell["measured"] and all(cell[claim] == expected for claim in claims)


def page_says(cell: dict[str, Any]) -> str:
    """Return the page's verdict and its correction if the measured one differs from either, or nothing."""
    return {
        (): "",
        ("published", "corrected"): f"page: {cell['published']}",
        ("published",): f"page: {cell['published']}, since corrected",
        ("corrected",): f"page: {cell['published']}, now {cell['corrected']}",
    }[tuple(differs_from(cell))]


def shown(cell: dict[str, Any]) -> str:
    """A cell in words: `yes`, `yes (page: no)`, `not measured`."""
    if cell["measured"] == "not-measured":
        return "not measured"
    page = page_says(cell)
    larger = f"; {cell['expected']['verdict']} expected with {cell['expected']['model']}" if vanishes(cell) else ""
    return cell["measured"] + (f" ({page}{larger})" if page else "")
