"""The parameters of each job, as the one JSON text that its script is given: functions of wildcards."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.config.tasks import TASKS
from snaketune.core.file_digests import CodeDigests, FileDigests, file_digest, lock_digest
from snaketune.core.gpus import GPUS
from snaketune.dag.inputs import Inputs
from snaketune.dag.patterns import CARD, PAGE, PROGRAM
from snaketune.dag.recipes import Recipes
from snaketune.export.runtime_adapters.files import parts_of_all


class JobParams:
    """Everything that can change a job's result, besides its inputs."""

    def __init__(self, matrix: Recipes, root: Path):
        self.matrix, self.root = matrix, root
        self.probe = matrix.experiment.parity.probe.model_dump()
        self._digests = FileDigests(Path("work/digests.json"))
        self._code = CodeDigests(root / "scripts", Path("work/code-digests.json"))

    def encode(self, script: str, environment: str = "train", **values: Any) -> str:
        """Return parameters with digests of the script's code and of its environment's lock file.

        They are one value because Snakemake compares params as a set without names: values that are
        swapped between two of them would go unseen.
        """
        digests = {
            "code": self._code.of(self.root / "scripts" / script),
            "environment": lock_digest(self.root / "envs" / environment / "requirements.txt"),
        }
        return json.dumps(values | digests, sort_keys=True)

    def _digests_of(self, paths: Iterable[Any]) -> dict[str, str]:
        """Return the digest of each of the user's files, whose times can't be trusted (`cp -p`, `git checkout`)."""
        return {str(path): self._digests.of(Path(path)) for path in paths if path}

    def data(self, wildcards: Any) -> str:
        """Return what decides which rows there are; scoring and descriptions are left out."""
        scoring = {"description", "licence", "metrics", "primary_metric", "max_tokens", "max_new_tokens"}
        scenario, source = self.matrix.scenarios[wildcards.scenario], self.matrix.scenarios[wildcards.scenario].source
        found = scenario.model_dump(exclude=scoring)
        del found["budgets"]["truncated"]
        if source.builtin:
            # Documentation is full of numbers, and none of them is anybody's.
            del found["phone_regions"]
        # The corpus is imported by name, which the script's own digest can't see.
        path = self.root / f"scripts/snaketune/corpora/{source.builtin}.py"
        return self.encode(
            "prepare_data.py",
            scenario=found,
            source_digests=self._digests_of(source.paths),
            corpus_code=self._code.of(path) if source.builtin else None,
        )

    def tokens(self, wildcards: Any) -> str:
        found = self.matrix.scenarios[wildcards.scenario]
        budget, novelty = found.budgets.truncated, "novelty" in TASKS[found.task].metrics
        limits = found.model_dump(include={"max_tokens", "gate"})
        return self.encode("tokenize_data.py", truncated=budget, novelty=novelty, **limits)

    def answer_limit(self, wildcards: Any) -> int | str:
        return self.matrix.scenarios[wildcards.scenario].max_new_tokens or ""

    def tokenizer(self, wildcards: Any) -> str:
        build = self.matrix.models[wildcards.model].build
        assert build
        return self.encode("train_tokenizer.py", **build.model_dump(include={"vocabulary", "context"}))

    def pretraining(self, wildcards: Any) -> str:
        return self.encode("pretrain_model.py", **self.matrix.pretraining_recipe(wildcards.model))

    def fetched_model(self, wildcards: Any) -> str:
        model = self.matrix.models[wildcards.model]
        origin = model.model_dump(include={"hub", "revision", "path"})
        if model.gguf:
            origin["gguf"] = model.gguf.model_dump()
        if model.gguf or model.config:
            # That of a directory is in its config.json.
            family = {} if model.path else {"model_type": model.model_type}
            origin["config"] = family | model.sizes
        local = Inputs(self.matrix).local_model(wildcards)
        return self.encode("fetch_model.py", **origin, source_digests=self._digests_of(local))

    def download(self, wildcards: Any) -> str:
        """Return what fetching the model downloads, for the job's message."""
        found = self.matrix.models[wildcards.model].download
        return f" ({found})" if found else ""

    def training(self, wildcards: Any) -> str:
        recipe = self.matrix.training_recipe(wildcards.model, wildcards.technique, int(wildcards.seed))
        return self.encode("train.py", **recipe, **self._start(wildcards.technique))

    def _start(self, technique: str) -> dict[str, Any]:
        """Return the hashes of the adapter that training goes on from."""
        digests = self._digests_of(Inputs(self.matrix).start_of(technique))
        return {"start_digests": digests} if digests else {}

    def training_at_rate(self, wildcards: Any) -> str:
        """Return the parameters of a training of the learning-rate grid, with the first seed."""
        seed, rate = self.matrix.experiment.seeds[0], float(wildcards.rate)
        recipe = self.matrix.training_recipe(wildcards.model, wildcards.technique, seed, rate)
        return self.encode("train.py", **recipe, **self._start(wildcards.technique))

    def property_run(self, wildcards: Any) -> str:
        return self.encode("train.py", **self.matrix.property_recipe(wildcards.technique, int(wildcards.ranks)))

    def merge(self, wildcards: Any) -> str:
        return self.encode("merge_adapter.py", probe=self.probe, **self.matrix.merge_recipe(wildcards.technique))

    def evaluation(self, wildcards: Any) -> str:
        recipe = self.matrix.evaluation_recipe(wildcards.scenario)
        chosen = {} if wildcards.get("precision") else self.matrix.evaluated_with
        return self.encode("evaluate.py", **recipe, **chosen)

    def quantization(self, wildcards: Any) -> str:
        return self.encode("quantize_onnx.py", "export", **self.matrix.export_recipe(wildcards.precision))

    def genai(self, wildcards: Any) -> str:
        return self.encode("build_genai.py", "export", **self.matrix.export_recipe(wildcards.precision))

    def parity(self, wildcards: Any) -> str:
        return self.encode("check_parity.py", **self.matrix.parity_recipe(wildcards.scenario, wildcards.technique))

    def benchmark(self, wildcards: Any) -> str:
        benchmark = self.matrix.experiment.benchmark
        assert benchmark
        return self.encode("benchmark.py", **benchmark.model_dump())

    def package(self, wildcards: Any) -> str:
        cell = (wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed))
        template = {name: file_digest(self.root / name) for name in CARD}
        program = file_digest(self.root / PROGRAM)
        return self.encode("package_model.py", template=template, program=program, **self.matrix.package_recipe(*cell))

    def switchable_base(self, wildcards: Any) -> str:
        beside = [name for name, export in self.matrix.shipped.items() if export == wildcards.get("precision")]
        recipes = [self.matrix.technique_recipe(wildcards.model, name) for name in beside or self.matrix.switched]
        adapters = [recipe["adapter"] for recipe in recipes]
        return self.encode("export_base_for_adapters.py", "export", parts=parts_of_all(adapters))

    def adapter_parity(self, wildcards: Any) -> str:
        experiment = self.matrix.experiment
        budget = experiment.parity.budgets.get("merged-onnx-fp32")
        return self.encode(
            "check_adapter.py",
            probe=self.probe,
            threads=experiment.evaluation.threads,
            gate=experiment.parity.gate,
            largest_logit_difference=budget and budget.largest_logit_difference,
        )

    def report(self, wildcards: Any) -> str:
        """Return the report's parameters from a function: Snakemake takes braces in a text for wildcards."""
        matrix, described = self.matrix, {"description", "licence"}
        return self.encode(
            "write_report.py",
            **matrix.summary_recipe(),
            template={name: file_digest(self.root / name) for name in PAGE},
            benchmarked=matrix.experiment.benchmark is not None,
            techniques={name: technique.model_dump() for name, technique in matrix.techniques.items()},
            training=matrix.experiment.training.model_dump(),
            models={name: model.about for name, model in matrix.models.items()},
            cards={name: scenario.model_dump(include=described) for name, scenario in matrix.scenarios.items()},
        )

    def record(self, wildcards: Any) -> str:
        return self.encode("record_results.py", **self.matrix.record_recipe())

    def pretraining_checkpoint_steps(self, wildcards: Any) -> int:
        build = self.matrix.models[wildcards.model].build
        return build.pretraining.checkpoint_steps if build and build.pretraining else 1

    def launcher(self, wildcards: Any, resources: Any) -> str:
        """Return what starts a training: several ranks, or DeepSpeed, need a launcher.

        As a function of `resources` it is no trigger: on how many nodes a job runs changes no result.
        """
        technique = self.matrix.techniques[wildcards.technique]
        ranks, nodes = int(wildcards.get("ranks", technique.world_size)), int(resources.get("nodes") or 1)
        # Snakemake lowers a request to what there is, but ranks can't share a GPU.
        python = self.on_gpu(wildcards, {"gpu": ranks if resources.get("gpu") else 0})
        if ranks == 1 and technique.engine.type == "torch":
            return python
        return f'{python} "$SNAKETUNE/scripts/launch.py" --nodes {nodes} --ranks {ranks} --threads {technique.threads}'

    def on_gpu(self, wildcards: Any, resources: Any) -> str:
        """Return what starts a Python script: on one machine, first to find GPUs that are free."""
        gpus = int(resources.get("gpu") or 0)
        return f'python "$SNAKETUNE/scripts/on_gpu.py" {gpus} python' if gpus and GPUS in os.environ else "python"

    @property
    def tracking(self) -> list[str]:
        return ["--track", *self.matrix.experiment.tracking] if self.matrix.experiment.tracking else []


def not_a_trigger(value: Any) -> Any:
    """Return a param whose changes re-run nothing: Snakemake doesn't compare params from functions of `output`."""

    def param(wildcards: Any, output: Any) -> Any:
        return value(wildcards) if callable(value) else value

    return param
