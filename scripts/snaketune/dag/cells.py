"""The runs of an experiment, and the techniques and precisions that each stage applies to."""

from functools import cached_property
from itertools import product

from snaketune.config.adapter import Ia3, Lora, Vera
from snaketune.config.matrix import Matrix
from snaketune.core.paths import Cell


class Cells(Matrix):
    """A matrix as the graph of jobs needs it."""

    @cached_property
    def cells(self) -> list[Cell]:
        """Every run that ends in results/runs/ with a model: the untuned model first."""
        experiment, found = self.experiment, []
        for model, scenario in product(experiment.models, experiment.scenarios):
            found.append((model, scenario, "base", 0))
            for technique in self.techniques:
                seeds = experiment.seeds_of(model, scenario, technique)
                found += [(model, scenario, technique, seed) for seed in seeds]
        return found

    @cached_property
    def prefixed(self) -> list[str]:
        """Techniques whose prefix can't be merged: their runs end with the base, started from it."""
        return [name for name, technique in self.techniques.items() if technique.ends == "prefix"]

    @cached_property
    def unmerged(self) -> list[str]:
        """Techniques whose runs end with the adapter beside the base."""
        return [name for name, technique in self.techniques.items() if technique.ends == "adapter"]

    @cached_property
    def merged(self) -> list[str]:
        """Techniques whose runs end with one merged model, and the untuned model's."""
        return ["base", *(name for name, technique in self.techniques.items() if technique.merges)]

    @cached_property
    def with_adapter(self) -> list[str]:
        return [name for name, technique in self.techniques.items() if technique.adapter]

    @cached_property
    def shipped(self) -> dict[str, str]:
        """Techniques trained on the numbers of an export, with its name: they are shipped as that base and an adapter."""
        return {name: one.export for name, one in self.techniques.items() if one.export}

    @property
    def rounded(self) -> list[str]:
        """Techniques whose merged models are quantized, and the untuned model's."""
        return [name for name in self.merged if name not in self.shipped]

    @property
    def quantized(self) -> list[str]:
        """Precisions that are quantized from fp32."""
        return [name for name in self.exports if name not in self.genai]

    @cached_property
    def switched(self) -> list[str]:
        """Techniques whose adapter can be switched at run time: those with low-rank factors or scales of a layer's ends.

        A quantized base has other weights, and an adapter that keeps only the seed of its projections, or has whole modules, can't be exported.
        """
        return [
            name
            for name, technique in self.techniques.items()
            if isinstance(technique.adapter, Lora | Ia3 | Vera)
            and technique.base_precision == "fp32"
            and getattr(technique.adapter.options, "save_projection", True)
            and not getattr(technique.adapter.options, "modules_to_save", None)
        ]

    @property
    def switchable(self) -> list[str]:
        """Precisions of the base that adapters are switched on."""
        weights = {name: getattr(export.options, "weights", None) for name, export in self.exports.items()}
        return ["fp32", *(name for name in self.genai if weights[name] == "fp32")]
