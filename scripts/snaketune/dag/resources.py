"""The memory, time, cores and GPUs of each job, from its parameters, its model's shape and its tokenized rows.

Snakemake asks again before it submits a job: what was a bound before a model was fetched or rows
were tokenized is exact by then. Resources re-run nothing.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar

from snakemake.exceptions import WorkflowError

from snaketune.config.export import Auto
from snaketune.config.technique import Technique
from snaketune.dag import devices, estimates
from snaketune.dag.fitting import fitting
from snaketune.dag.known_sizes import KnownSizes
from snaketune.dag.needs import NEEDS, Need, megabytes, minutes
from snaketune.dag.recipes import Recipes
from snaketune.dag.shape import Shape

# MB, measured: two Snakemakes of 140 MB start in every job of a cluster, whatever it then does.
SNAKEMAKES = 280
# What training all weights of a built model is like.
PRETRAINING = {
    "adapter": None,
    "base_precision": "fp32",
    "engine": {"type": "torch", "zero_stage": 0, "offload": "none"},
    "world_size": 1,
}


class JobResources:
    """Functions of wildcards for `threads` and `resources`."""

    # Those of the Snakefile that this process has read: `make plan` asks them what a job has where.
    read: ClassVar["JobResources"]

    def __init__(self, matrix: Recipes, workflow: Any):
        self.matrix, self.workflow, self.sizes = matrix, workflow, KnownSizes(matrix)
        JobResources.read = self

    @property
    def counts_gpus(self) -> bool:
        """Return True if a profile, --resources or this machine says how many GPUs there are."""
        return self._gpus > 0

    @property
    def _gpus(self) -> int:
        counted = self.workflow.global_resources.get("gpu") if self.workflow is not None else None
        return int(counted.value or 0) if counted is not None else 0

    def one_gpu(self, wildcards: Any) -> int:
        return int(self.counts_gpus)

    def evaluation_gpus(self, wildcards: Any) -> int:
        device = self.matrix.experiment.evaluation.device
        return int(device == "cuda" or (device == "auto" and self.counts_gpus))

    def memory(self, kind: str) -> Callable[..., int]:
        """Return the megabytes of a job of a kind of NEEDS."""

        def needed(wildcards: Any, attempt: int) -> int:
            constant = self._need(kind, wildcards).bytes(self._parameters(wildcards))
            if kind == "torch" and self.evaluation_gpus(wildcards):
                constant = devices.evaluation_host_bytes(self._parameters(wildcards))
            return memory_of_attempt(
                megabytes(constant + self.sizes.held_row_bytes(kind, wildcards.get("scenario"))), attempt
            )

        return needed

    def _need(self, kind: str, wildcards: Any) -> Need:
        """Return what a kind of job needs; an export whose bits are chosen is evaluated for each choice."""
        export = self.matrix.exports.get(wildcards.get("precision", "")) if kind in ("quantize", "genai") else None
        return NEEDS["auto" if export and isinstance(export.options, Auto) else kind]

    def minutes(self, kind: str) -> Callable[..., int]:
        def needed(wildcards: Any, attempt: int) -> int:
            faster = devices.GPU_FASTER if kind == "torch" and self.evaluation_gpus(wildcards) else 1
            return minutes_of_attempt(
                minutes(self._need(kind, wildcards).seconds(self._parameters(wildcards) // faster)), attempt
            )

        return needed

    def training_memory(self, wildcards: Any, input: Any, attempt: int, threads: int, rulename: str) -> int:
        """Return the megabytes of each node: SLURM asks the same of all of them."""
        recipe, shape, longest, _ = self._training(wildcards)
        nodes = self._nodes(rulename, wildcards=wildcards, input=input, attempt=attempt, threads=threads)
        estimate = devices.training_host_bytes if self.counts_gpus else estimates.training_bytes
        return memory_of_attempt(megabytes(estimate(recipe, shape, longest) / nodes), attempt)

    def training_minutes(self, wildcards: Any, attempt: int) -> int:
        recipe, shape, _, tokens = self._training(wildcards)
        adapter = estimates.adapter_parameters(shape, recipe["adapter"]) if recipe["adapter"] else 0
        cores, gpus = recipe["world_size"] * recipe["threads"], self.training_gpus(wildcards)
        return minutes_of_attempt(
            minutes(estimates.training_seconds(shape.parameters + adapter, tokens, cores, gpus)), attempt
        )

    def training_gpus(self, wildcards: Any) -> int:
        """Return one GPU for each rank if they are counted."""
        return self._training(wildcards)[0]["world_size"] if self.counts_gpus else 0

    def short_of_gpus(self, jobs: Iterable[tuple[str, Any]]) -> list[str]:
        """Return a sentence for each technique of (rule, wildcards) with more ranks than there are GPUs.

        Snakemake would lower what such a job asks for to what there is, but ranks can't share a GPU. One more sentence
        if evaluations ask for a GPU and none is counted.
        """
        jobs, sentences = list(jobs), []
        asked = dict(sorted((one.technique, self.training_gpus(one)) for rule, one in jobs if is_training(rule)))
        on_gpu = self.matrix.experiment.evaluation.device == "cuda" and any(
            rule == "evaluate_torch" for rule, _ in jobs
        )
        if on_gpu and not self.counts_gpus:
            sentences = [
                "Merged models are to be evaluated on a GPU (`evaluation.device: cuda`), and no GPU is counted: set `device: auto`, or name the GPUs with `--resources gpu=N`."
            ]
        return sentences + [
            f"Training {name} takes {ranks} GPUs, one for each rank, and there {'is 1' if self._gpus == 1 else f'are {self._gpus}'}: set `ranks: {{{name}: {self._gpus}}}` in the experiment (and in `properties`), or leave it out."
            for name, ranks in asked.items()
            if ranks > self._gpus > 0
        ]

    def gpu_bytes(self, rule: str, wildcards: Any) -> float:
        """Return the memory that a job needs on each of its GPUs."""
        if rule == "evaluate_torch" and self.evaluation_gpus(wildcards):
            return devices.evaluation_gpu_bytes(self._parameters(wildcards))
        return (
            devices.training_gpu_bytes(*self._training(wildcards)[:3]) if is_training(rule) and self.counts_gpus else 0
        )

    def disk_bytes(self, rule: str, wildcards: Any) -> tuple[float, float]:
        """Return what a job leaves on disk, and what it needs there beside that while it runs."""
        if wildcards.get("model") not in self.matrix.models:
            return 0, 0
        adapter = self._training(wildcards)[0]["adapter"] if is_training(rule) else None
        return devices.disk_bytes(rule, self.sizes.shape(wildcards.model), adapter, wildcards.get("precision", ""))

    def fitting(self, wildcards: Any, limit: float) -> tuple[dict[str, Any], float] | None:
        """Return changes of a technique with which its training is within so many bytes, and its estimate then."""
        recipe, shape, longest, _ = self._training(wildcards)
        estimate = devices.training_gpu_bytes if self.counts_gpus else estimates.training_bytes

        def needed(change: dict[str, Any]) -> float:
            return estimate({**recipe, **change}, shape, longest)

        return fitting(self._technique(wildcards), longest, needed, limit, recipe["compute_precision"])

    def pretraining_memory(self, wildcards: Any, attempt: int) -> int:
        recipe = {"batch_rows": 1, "sequence_length": 1, **self.matrix.pretraining_recipe(wildcards.model)}
        recipe |= {**PRETRAINING, "micro_batch_rows": recipe["batch_rows"]}
        estimate = devices.training_host_bytes if self.counts_gpus else estimates.training_bytes
        needed = estimate(recipe, self.sizes.shape(wildcards.model), recipe["sequence_length"])
        return memory_of_attempt(megabytes(needed + NEEDS["data"].memory), attempt)

    def pretraining_minutes(self, wildcards: Any, attempt: int) -> int:
        recipe, parameters = (
            self.matrix.pretraining_recipe(wildcards.model),
            self.sizes.shape(wildcards.model).parameters,
        )
        return minutes_of_attempt(
            minutes(estimates.training_seconds(parameters, recipe["tokens"], recipe["threads"])), attempt
        )

    def pretraining_cores(self, wildcards: Any) -> int:
        return int(self.matrix.pretraining_recipe(wildcards.model)["threads"])

    def training_cores(self, wildcards: Any) -> int:
        technique = self._technique(wildcards)
        return int(wildcards.get("ranks", technique.world_size)) * technique.threads

    def training_priority(self, wildcards: Any) -> int:
        """Return more the more cores it needs: they are seldom free at once when jobs of one core have started.

        Squared, because Snakemake adds the priorities of what it starts at once. By the durations of the default experiment,
        3 cores need 346 s in place of 377 and 4 need 290 in place of 333; 2 have no core idle either way.
        """
        return 10 * self.training_cores(wildcards) ** 2

    def rank_cores(self, wildcards: Any) -> int:
        return self._technique(wildcards).threads

    def every_core(self, used: Callable[[Any], int]) -> Callable[[Any], int]:
        """Return all cores, so that nothing else runs; on a cluster, whose profile asks for a whole node, those used."""

        def cores(wildcards: Any) -> int:
            with suppress(WorkflowError):
                if self.workflow.local_exec:
                    return int(self.workflow.cores)
            return used(wildcards)

        return cores

    def _technique(self, wildcards: Any) -> Technique:
        return self.matrix.techniques[wildcards.technique]

    def _training(self, wildcards: Any) -> tuple[dict[str, Any], Shape, int, int]:
        """Return the parameters, shape, longest row and tokens of a training job."""
        experiment = self.matrix.experiment
        if "ranks" in wildcards.keys():  # noqa: SIM118 (Snakemake's wildcards are a list of values)
            assert experiment.properties
            model, scenario = experiment.properties.model, experiment.properties.scenario
            recipe = self.matrix.property_recipe(wildcards.technique, int(wildcards.ranks))
            longest = self.sizes.rows(model, scenario)[0]
            return recipe, self.sizes.shape(model), longest, recipe["steps"] * recipe["batch_rows"] * longest
        seed, rate = int(wildcards.get("seed", experiment.seeds[0])), wildcards.get("rate")
        recipe = self.matrix.training_recipe(wildcards.model, wildcards.technique, seed, rate and float(rate))
        longest, tokens = self.sizes.rows(wildcards.model, wildcards.scenario)
        steps = recipe.get("max_steps")
        tokens = steps * recipe["batch_rows"] * longest if steps else tokens * recipe["epochs"]
        return recipe, self.sizes.shape(wildcards.model), longest, tokens

    def _nodes(self, rulename: str, **given: Any) -> int:
        """Return the nodes that a cluster's profile asks for; Snakemake lets no resource depend on another."""
        asked = self.workflow.get_rule(rulename).resources.get("nodes")
        return (asked and asked.evaluate(rulename=rulename, async_run=self.workflow.async_run, **given).value) or 1

    def _parameters(self, wildcards: Any) -> int:
        """Return the parameters of the model that a job loads, 0 for a service's own."""
        return self.sizes.shape(wildcards.model).parameters if wildcards.get("model") in self.matrix.models else 0


def is_training(rule: str) -> bool:
    return rule in ("train_adapter", "train_all_weights", "train_at_rate", "measure_technique")


def memory_of_attempt(needed: int, attempt: int) -> int:
    """Add Snakemake's own memory, and half as much more with each attempt: a job killed for its memory gets more."""
    return (needed + SNAKEMAKES) * (1 + attempt) // 2


def minutes_of_attempt(limit: int, attempt: int) -> int:
    """Double a time limit with each attempt: the speed that it assumes of a GPU was measured on none.

    With three retries an evaluation gets 8 times as long, and a training, which resumes, 15 times in all.
    """
    return limit * 2 ** (attempt - 1)
