"""The part of `config/` that each job depends on."""

from typing import Any

from snaketune.config.claims import REFERENCE
from snaketune.config.corpora import DOCUMENTATION
from snaketune.config.experiment import MERGED, MERGED_INTO, SHIPPED
from snaketune.config.export import AutoExport
from snaketune.config.matrix import measured_techniques
from snaketune.core.precisions import calibrates
from snaketune.dag.cells import Cells
from snaketune.dag.estimates import training_memory
from snaketune.dag.shape import UNKNOWN

# What the estimate is asked for beside the measurement with a small model: UNKNOWN has this name.
LARGE, LARGE_ROW = "Phi-3-mini", 512
RANDOM_WEIGHTS = {"tokens": 0, "threads": 1, "seed": 1}
# What only matters to a run that is validated.
OF_WHOLE_RUNS = {"max_steps", "eval_steps", "load_best_model_at_end", "early_stopping_patience", "start_from"}


class Recipes(Cells):
    """A matrix that also returns the parameters of its jobs, without digests."""

    def training_recipe(self, model: str, technique: str, seed: int, rate: float | None = None) -> dict[str, Any]:
        """Return the parameters of a training job; at a ``rate`` of the grid, one epoch whose weights aren't kept."""
        rates = self.techniques[technique].learning_rate
        own = rates.get(model, rates["default"]) if isinstance(rates, dict) else rates
        return {
            **self.technique_recipe(model, technique),
            **self.experiment.training.model_dump(exclude={"checkpoint_steps"}),
            **({"epochs": 1} if rate else {}),
            "learning_rate": rate or own,
            "keep_weights": rate is None,
            "seed": seed,
        }

    def property_recipe(self, technique: str, ranks: int) -> dict[str, Any]:
        """Return the parameters of a training job of a few steps on so many ranks, whose weights aren't kept."""
        properties = self.experiment.properties
        assert properties is not None
        whole = self.training_recipe(properties.model, technique, self.experiment.seeds[0])
        recipe = {key: value for key, value in whole.items() if key not in OF_WHOLE_RUNS}
        return {**recipe, "epochs": 1, "steps": properties.steps, "world_size": ranks, "keep_weights": False}

    def parameters(self) -> dict[str, Any]:
        """Return the whole resolved matrix, which `dvc params diff` compares."""
        kinds: dict[str, dict[str, Any]] = {
            "models": self.models,
            "scenarios": self.scenarios,
            "techniques": {**self.techniques, **self.hosted},
            "exports": self.exports,
        }
        return {
            "experiment": self.experiment.model_dump(),
            **{kind: {name: one.model_dump() for name, one in found.items()} for kind, found in kinds.items()},
        }

    def record_recipe(self) -> dict[str, Any]:
        documented = any(one.source.builtin in DOCUMENTATION for one in self.scenarios.values())
        return {
            "cells": self.cells,
            "precisions": self.exported,
            "calibrated": self.calibrated,
            **({"shipped": self.shipped} if self.shipped else {}),
            "benchmarked": self.experiment.benchmark is not None,
            "corpus": documented or bool(self.built),
            "built": self.built,
            "prefixed": self.prefixed,
            **({"unmerged": self.unmerged} if self.unmerged else {}),
            "with_adapter": self.with_adapter,
            "pairs": self.pairs,
            "property_runs": self.property_runs,
            "parameters": self.parameters(),
            "hosted": self.hosted_cells,
        }

    def evaluation_recipe(self, scenario: str) -> dict[str, Any]:
        """Return what an evaluation depends on; which of the task's metrics count is left out."""
        return {
            **self.experiment.evaluation.model_dump(
                include={"threads", "speed_prompts", "speed_tokens", "share_prompts"}
            ),
            **self.scenarios[scenario].model_dump(include={"task", "max_new_tokens", "gate"}),
            "probe": self.experiment.parity.probe.model_dump(),
            "truncated": self.scenarios[scenario].budgets.truncated,
        }

    @property
    def evaluated_with(self) -> dict[str, str]:
        """Return device and precision of merged models' evaluations where they aren't the defaults."""
        return self.experiment.evaluation.model_dump(include={"device", "precision"})

    @property
    def hosted_cells(self) -> list[dict[str, Any]]:
        """Every run at a service; whether its model is asked the test rows, and whether the untuned one is."""
        return [
            {"cell": [one.row_model, scenario, name, seed], "asks": one.asks, "asks_untuned": one.asks_untuned}
            for scenario in self.experiment.scenarios
            for name, one in self.hosted.items()
            for seed in self.experiment.seeds
        ]

    def pretraining_recipe(self, model: str) -> dict[str, Any]:
        build, family = self.models[model].build, self.models[model].model_type
        assert build is not None
        plan = build.pretraining.model_dump(exclude={"checkpoint_steps"}) if build.pretraining else RANDOM_WEIGHTS
        other = {} if family == "phi3" else {"model_type": family}
        return {**build.model_dump(exclude={"pretraining"}), **plan, **other}

    def merge_recipe(self, technique: str) -> dict[str, Any]:
        return self.techniques[technique].model_dump(include={"base_precision", "threads", "stream_merge"})

    @property
    def calibrated(self) -> list[str]:
        """Precisions whose scales are found on a scenario's training rows."""
        return [name for name in self.exports if calibrates(self.export_recipe(name))]

    def export_recipe(self, precision: str) -> dict[str, Any]:
        return self.exports[precision].model_dump(exclude={"description"})

    def parity_recipe(self, scenario: str, technique: str) -> dict[str, Any]:
        """Return the budgets of a run; a base of another precision than fp32 may have its own for merging.

        Bits chosen within a budget are held to it, unless the experiment has another.
        """
        parity = self.experiment.parity.model_dump(exclude={"probe"}, exclude_none=True)
        chosen = {
            f"onnx-fp32-{name}": one.parity_budget()
            for name, one in self.exports.items()
            if isinstance(one, AutoExport)
        }
        parity["budgets"] = chosen | parity["budgets"]
        base = "" if technique == "base" else self.techniques[technique].base_precision
        own = {precision: parity["budgets"].pop(step, None) for precision, step in MERGED_INTO.items()}.get(base)
        parity["budgets"] |= {MERGED: own} if own is not None else {}
        if technique not in self.shipped:
            parity["budgets"].pop(SHIPPED, None)
        return {
            **parity,
            **self.experiment.evaluation.model_dump(include={"bootstrap_samples", "confidence"}),
            "primary_metric": self.scenarios[scenario].primary_metric,
        }

    def package_recipe(self, model: str, scenario: str, technique: str, seed: int) -> dict[str, Any]:
        """Return the configuration that a model card shows."""
        data, source, precision = self.scenarios[scenario], self.scenarios[scenario].source, self.packaged
        assert precision is not None
        written = source.builtin not in (None, "tunes")
        return {
            "cell": [model, scenario, technique, seed],
            "precision": precision,
            "export": self.exports[precision].model_dump(),
            "model": {
                "description": self.models[model].about,
                **self.models[model].model_dump(include={"licence", "hub", "revision", "model_type"}),
            },
            "scenario": {
                **data.model_dump(include={"description", "licence", "task", "prompt"}),
                **source.model_dump(include={"hub", "revision"}),
                "languages": ["en", *source.options.get("languages", {})] if written else [],
            },
            "technique": self.techniques[technique].description if technique != "base" else "",
            "confidence": self.experiment.evaluation.confidence,
        }

    def summary_recipe(self) -> dict[str, Any]:
        """Every run, and how each scenario is scored."""
        scored = ("primary_metric", "higher_is_better")
        return {
            "cells": self.cells,
            "scenarios": {name: {key: getattr(one, key) for key in scored} for name, one in self.scenarios.items()},
            "precisions": self.exported,
            "calibrated": self.calibrated,
            **self.experiment.evaluation.model_dump(include={"bootstrap_samples", "confidence"}),
            "hosted": self.hosted_cells,
        }

    def table_recipe(self) -> dict[str, Any]:
        """Return what the cells of the published table are measured by."""
        properties = self.experiment.properties
        equal = {"batch_rows": self.experiment.training.batch_rows, "seeds": self.experiment.seeds[:1]}
        return {
            "model": next(iter(self.experiment.models), None),
            "scenarios": self.experiment.scenarios,
            "techniques": list(self.techniques),
            "confidence": self.experiment.evaluation.confidence,
            "properties": properties and properties.model_dump() | equal,
            "property_runs": self.property_runs,
            "ranks": {name: self.techniques[name].world_size for name in measured_techniques(self.techniques)},
            "expected": {"memory": self.expected_memory()} if properties else {},
            "offloaded": [name for name, technique in self.techniques.items() if technique.engine.offload != "none"],
        }

    def expected_memory(self) -> dict[str, dict[str, str]]:
        """Return whether each technique is expected to need less memory than full with a model of a usual size."""
        held = {}
        for name in measured_techniques(self.techniques):
            technique = self.techniques[name]
            recipe = self.property_recipe(name, technique.world_size) | {"micro_batch_rows": 1}
            memory = training_memory(recipe, UNKNOWN, LARGE_ROW)
            # An optimizer that is offloaded is on the host, which a GPU is relieved of.
            moved = memory.optimizer if technique.engine.offload != "none" else 0
            held[name] = (memory.total - memory.libraries - moved, memory.states - moved)
        found = {}
        for name, own in held.items():
            peak, states = (mine / full for mine, full in zip(own, held[REFERENCE], strict=True))
            found[name] = {
                "model": LARGE,
                "verdict": "yes" if max(peak, states) < 1 else "no",
                "text": f"estimated peak {peak:.2g} × {REFERENCE}, model states {states:.2g} × {REFERENCE} ({UNKNOWN.parameters / 1e9:.1f} billion parameters, rows of {LARGE_ROW} tokens, one at a time)",
            }
        return found
