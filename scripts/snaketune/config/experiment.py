"""Typed model of an experiment: `config/config.yaml` and the files of `config/experiments/`."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from snaketune.config.base import Name, Share, Strict, optional
from snaketune.config.trackers import Tracker

# Conversion steps: an adapter's merging, and that into bases whose rounding counts.
MERGED = "adapter-merged"
# The adapter as it was trained, compared with what is shipped: the export that it was trained on, with it beside.
SHIPPED = "adapter-shipped"
MERGED_INTO = {precision: f"{MERGED}-{precision}" for precision in ("bf16", "fp16", "int8")}
Seed = Annotated[int, Field(ge=1)]


class Training(Strict):
    """The same for every technique, so that data order, tokens and batch size favour none."""

    epochs: PositiveInt = Field(3, description="passes over the training rows")
    max_steps: PositiveInt | None = optional(None, "number of global batches, instead of epochs")
    eval_steps: PositiveInt | None = optional(None, "steps between validations; by default one epoch")
    load_best_model_at_end: bool = optional(
        False, "keep the weights with the lowest validation loss instead of the last ones"
    )
    early_stopping_patience: PositiveInt | None = optional(
        None,
        "stop after this many validations without a lower loss; techniques may then train for different numbers of steps",
    )
    label_smoothing_factor: float = optional(
        0.0, "share of the target spread evenly over the vocabulary in training, not in validation", ge=0, lt=1
    )
    batch_rows: PositiveInt = Field(16, description="rows per global batch")
    compute_precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32",
        description="precision of matrix products in training, unless the technique's base has 16 bits; trained weights stay fp32; tf32 and fp16 need a GPU",
    )
    checkpoint_steps: PositiveInt = Field(100, description="steps between checkpoints")


class Evaluation(Strict):
    """How models are evaluated on the test rows."""

    device: Literal["auto", "cpu", "cuda"] = optional(
        "auto", "where merged models are evaluated; auto uses a GPU if torch sees one; exports run on the CPU"
    )
    precision: Literal["fp32", "bf16", "fp16"] = optional(
        "fp32",
        "precision to which merged models are rounded and in which they run; exports are compared with fp32 only",
    )
    share_prompts: bool = optional(
        True,
        "compute shared beginnings of test rows once, and rows and candidate answers together; false turns both off",
    )
    threads: PositiveInt = Field(1, description="threads of each evaluation")
    speed_prompts: PositiveInt = Field(15, description="number of test prompts that are timed")
    speed_tokens: PositiveInt = Field(32, description="tokens generated after each timed prompt")
    bootstrap_samples: PositiveInt = Field(10000, description="resamples of the test rows for each interval")
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")


class Probe(Strict):
    """The positions whose logits are compared."""

    rows: PositiveInt = Field(32, description="number of test rows")
    positions: PositiveInt = Field(16, description="last positions of each row")


class Budget(Strict):
    largest_logit_difference: PositiveFloat | None = Field(None, description="over all positions of the probe")
    kl_divergence: PositiveFloat | None = Field(None, description="mean over the probe, in nats")
    smallest_greedy_agreement: Share | None = Field(None, description="share of equal most likely tokens")
    perplexity_change: PositiveFloat | None = Field(
        None, description="log of the ratio: 0.01 is about 1 % more perplexity"
    )
    smallest_metric_change: float | None = Field(None, description="of the primary metric; positive is better")
    smallest_prompt_agreement: Share | None = Field(
        None, description="share of prompts that a genai package's own tokenizer turns into the tokens trained on"
    )
    smallest_stop_agreement: Share | None = Field(
        None, description="share of prompts after which a genai package's own loop stops where the evaluation does"
    )


class Parity(Strict):
    """How much conversion steps may change the model."""

    gate: Literal["fail", "warn"] = Field("fail", description="fail the run over a budget, or only flag it")
    probe: Probe = Probe()
    budgets: dict[str, Budget] = Field(
        default_factory=dict,
        description="allowed loss of each conversion step: adapter-merged, adapter-merged-bf16, adapter-shipped, merged-onnx-fp32, onnx-fp32-int8, …",
    )


class Corpus(Strict):
    """The Python libraries behind the built-in scenarios and models."""

    libraries: dict[str, str] = Field(description="PyPI distribution, and the package in it whose docstrings are read")
    exclude: list[str] = Field(
        default_factory=list, description="parts of module names to leave out, with dots on both sides"
    )


class Properties(Strict):
    """Short runs of equal work, with no other job running, of `full` and the techniques of the published table."""

    model: Name = Field(description="model to measure with")
    scenario: Name = Field(description="scenario whose rows are trained on")
    steps: PositiveInt = Field(4, description="global batches of each run")
    ranks: list[PositiveInt] = Field(
        [1, 2, 4],
        min_length=1,
        description="numbers of ranks to share a model over, each twice the one before; with one, sharing isn't measured",
    )
    rounds: PositiveInt = Field(3, description="how often each technique is run with its own number of ranks")

    @model_validator(mode="after")
    def _ranks_double(self) -> "Properties":
        if any(b != 2 * a for a, b in pairwise(self.ranks)):
            raise ValueError("each number of ranks must be twice the one before, such as [1, 2, 4]")
        return self


class Benchmark(Strict):
    """Measure how fast each form of each run's model generates, in interleaved rounds, with no other job running."""

    prompt_lengths: list[PositiveInt] = Field([32, 128], min_length=1, description="in tokens")
    batch_sizes: list[PositiveInt] = Field([1, 4], min_length=1, description="prompts at once")
    new_tokens: int = Field(32, ge=2, description="tokens generated after each prompt")
    rounds: int = Field(3, ge=2, description="how often each form is measured at each prompt length and batch size")
    threads: PositiveInt = Field(1, description="threads of each form")


class Package(Strict):
    """What `snakemake package` ships of each run."""

    precision: Name = Field("genai-int4", description="one of the experiment's genai precisions")


class Publish(Strict):
    """Consent to send data to other platforms, and how to wait for them; changes no result."""

    confirm: bool = Field(False, description="true allows hosted techniques to send the rows and spend money")
    poll_seconds: PositiveFloat = Field(30, description="seconds between requests for a job's state")
    requests_at_once: PositiveInt = Field(4, description="concurrent requests of an evaluation")


class Experiment(Strict):
    """The matrix of runs: models × scenarios × techniques × seeds, and export precisions."""

    models: list[Name] = Field(description="files in config/models/; empty if every technique is hosted")
    scenarios: list[Name] = Field(min_length=1, description="files in config/scenarios/")
    techniques: list[Name] = Field(min_length=1, description="files in config/techniques/")
    seeds: list[Seed] = Field(min_length=1, description="several compare techniques, one only trained models")
    more_seeds: dict[Name, dict[Name, dict[Name, list[Seed]]]] = Field(
        default_factory=dict,
        description="additional seeds of some runs, by model, scenario and technique; `make more-seeds` writes them",
        exclude_if=lambda found: not found,
    )
    ranks: dict[Name, PositiveInt] = Field(
        default_factory=dict, description="number of ranks per technique on this machine, overriding its `world_size`"
    )
    threads: dict[Name, PositiveInt] = Field(
        default_factory=dict,
        exclude_if=lambda found: not found,
        description="threads per rank for each technique, overriding its own `threads`",
    )
    precisions: list[Name] = Field(
        description="the exports: fp32 and those made from it; an empty list exports nothing"
    )
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    parity: Parity = Parity()
    corpus: Corpus
    properties: Properties | None = Field(None, description="also measure cost, memory and sharding over ranks")
    benchmark: Benchmark | None = Field(None, description="also measure the speed of every export of every run")
    package: Package = Package()
    # Left out of every record: it changes no result.
    publish: Publish = Field(Publish(), exclude=True)
    tracking: list[Tracker] = Field(
        default_factory=list,
        exclude=True,
        description="experiment trackers that log every training step below work/tracking; they change no result and re-run nothing",
    )
    keep_intermediates: bool = Field(True, description="false deletes merged models and fp32 ONNX after use")
    share_imports: bool = Field(
        True,
        exclude=True,
        description="false makes each local job import torch and other libraries itself; changes no result",
    )
    learning_rate_grid: list[PositiveFloat] = Field(
        default_factory=list, description="learning rates at which `make tune` trains every technique"
    )

    def seeds_of(self, model: str, scenario: str, technique: str) -> list[int]:
        """Return every seed of a technique on a scenario: those of all runs, and its own further ones."""
        return list(dict.fromkeys([*self.seeds, *self.more_seeds.get(model, {}).get(scenario, {}).get(technique, [])]))

    def without(self, techniques: list[str]) -> Self:
        """Return the experiment without some techniques."""
        kept = [name for name in self.techniques if name not in techniques]
        own = {key: {n: v for n, v in getattr(self, key).items() if n in kept} for key in ("ranks", "threads")}
        more = {
            model: {scenario: {k: v for k, v in named.items() if k in kept} for scenario, named in of_model.items()}
            for model, of_model in self.more_seeds.items()
        }
        return self.model_copy(update={"techniques": kept, **own, "more_seeds": more})

    @model_validator(mode="after")
    def _no_repeats(self) -> "Experiment":
        for key in ("models", "scenarios", "techniques", "seeds", "precisions"):
            values = getattr(self, key)
            if repeated := next((value for value in values if values.count(value) > 1), None):
                raise ValueError(f"{key} names {repeated} twice")
        for model, by_scenario in self.more_seeds.items():
            for scenario, by_technique in by_scenario.items():
                for key, names in (("models", [model]), ("scenarios", [scenario]), ("techniques", by_technique)):
                    if unknown := [name for name in names if name not in getattr(self, key)]:
                        raise ValueError(
                            f"more_seeds: {unknown[0]} is none of this experiment's {key}: add it, or leave that file out"
                        )
        for key in ("ranks", "threads"):
            if unknown := sorted(getattr(self, key).keys() - set(self.techniques)):
                raise ValueError(f"{key}: {unknown[0]} is none of this experiment's techniques")
        if "base" in self.techniques:
            raise ValueError("techniques: base is the untuned model, always measured; leave it out")
        if self.precisions and "fp32" not in self.precisions:
            raise ValueError("precisions must include fp32, from which the others are made")
        if self.benchmark and not self.precisions:
            raise ValueError("benchmark compares exports: add precisions, or leave benchmark out")
        if self.precisions and self.evaluation.precision != "fp32":
            raise ValueError(
                f"evaluation.precision: exports are compared with a model at fp32, not {self.evaluation.precision}: set `precisions: []`, or leave this key out"
            )
        if self.properties and "full" not in self.techniques:
            raise ValueError("properties compares each technique with full: add full to techniques")
        for step, budget in self.parity.budgets.items():
            merging = (MERGED, *MERGED_INTO.values())
            if step not in (*merging, SHIPPED, "merged-onnx-fp32") and not step.startswith("onnx-fp32-"):
                raise ValueError(
                    f"parity.budgets: there is no conversion step {step}; the steps are {', '.join(merging)}, {SHIPPED}, merged-onnx-fp32 and onnx-fp32-PRECISION"
                )
            answered = {"perplexity_change", "smallest_metric_change"} & budget.model_dump(exclude_none=True).keys()
            if step in merging and answered:
                raise ValueError(
                    f"parity.budgets.{step}: the unmerged adapter isn't evaluated, so there is no {min(answered)}"
                )
        return self
