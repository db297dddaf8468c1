"""Read `config/`, check it whole, and resolve it into the matrix of runs."""

import difflib
import sys
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from snaketune.config import combinations
from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.config.claims import COLUMNS, REFERENCE
from snaketune.config.experiment import Experiment
from snaketune.config.export import AnyExport, Export
from snaketune.config.exported_bases import check_exported_bases
from snaketune.config.model import Model
from snaketune.config.scenario import Scenario
from snaketune.config.started_adapters import check_start
from snaketune.config.technique import Hosted, Technique
from snaketune.config.validation import validated
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_yaml


def measured_techniques(techniques: Collection[str]) -> list[str]:
    """Return the techniques whose properties are measured: full first, then the columns of the published table."""
    return [name for name in (REFERENCE, *COLUMNS.values()) if name in techniques]


class Platform(NamedTuple):
    """An optional integration that trains techniques elsewhere.

    Attributes:
        key: the key that only its files in config/techniques/ have.
        technique: the typed model of such a file.
        check: raises a UserError if the platform can't run an experiment.
    """

    key: str
    technique: type[BaseModel]
    check: Callable[["Matrix"], None]


def technique_model(content: Any, platforms: Sequence[Platform]) -> type[BaseModel]:
    """The typed model of a file in config/techniques/."""
    keys = content if isinstance(content, dict) else {}
    return next((platform.technique for platform in platforms if platform.key in keys), Technique)


class Matrix:
    """An experiment with every file it names, checked before any job starts."""

    def __init__(
        self,
        config: dict[str, Any],
        root: Path,
        platforms: Sequence[Platform] = (),
        experiment: type[Experiment] = Experiment,
        presets: Path | None = None,
        where: str = "config/config.yaml",
    ):
        """``experiment`` may add the keys of ``platforms`` to an experiment's own.

        Files of config/ that aren't below ``root``, the project, are taken from ``presets``, the checkout.
        ``where`` says in messages what the experiment was read from.
        """
        self.root, self.presets = root, presets or root
        self.experiment: Experiment = validated(experiment, config, where)
        own, properties = self.experiment, self.experiment.properties
        models = [*own.models, *([properties.model] if properties else [])]
        scenarios = [*own.scenarios, *([properties.scenario] if properties else [])]
        self.models: dict[str, Model] = self._read_all("model", models, lambda _: Model)
        self.scenarios: dict[str, Scenario] = self._read_all("scenario", scenarios, lambda _: Scenario)
        every = self._read_all("technique", own.techniques, lambda one: technique_model(one, platforms))
        self.techniques: dict[str, Technique] = {n: t for n, t in every.items() if isinstance(t, Technique)}
        self.hosted: dict[str, Hosted] = {n: t for n, t in every.items() if n not in self.techniques}
        for key, field in (("ranks", "world_size"), ("threads", "threads")):
            for name, count in getattr(own, key).items():
                if name in self.hosted or name in self.remote:
                    raise UserError(f"{key}: {name} is trained by a service, which decides them itself: leave it out")
                self.techniques[name] = self.techniques[name].model_copy(update={field: count})
        more = {name for models in own.more_seeds.values() for scenario in models.values() for name in scenario}
        if elsewhere := sorted(more & set(self.hosted)):
            raise UserError(f"more_seeds: {elsewhere[0]} is trained by a service: add its seeds to `seeds:`")
        self.left_out = self._leave_out()
        others = [name for name in own.precisions if name != "fp32"]
        self.exports: dict[str, AnyExport] = self._read_all("export", others, lambda _: Export)
        known = self._files("exports")
        combinations.check_models(own.models, self.techniques)
        combinations.check_exports(self.experiment, self.techniques, self.exports, known)
        combinations.check_files(root, self.models, self.scenarios)
        adapters = {
            model: {name: self.technique_recipe(model, name)["adapter"] for name in self.techniques}
            for model in self.models
        }
        combinations.check_targets(root, self.models, self.families, adapters)
        combinations.check_precision(own.training.compute_precision, self.techniques)
        for (model, one), (name, technique) in product(self.models.items(), self.techniques.items()):
            if technique.start_from:
                place = f"config/techniques/{name}.yaml: start_from"
                check_start(place, root, technique.start_from, adapters[model][name], {model: one})
        check_exported_bases(known, self.techniques, self.exports)
        for platform in platforms:
            platform.check(self)

    @property
    def genai(self) -> list[str]:
        """Precisions that onnxruntime-genai builds and runs."""
        return [name for name, export in self.exports.items() if export.method in ("genai", "genai-auto")]

    @property
    def packaged(self) -> str | None:
        """The precision that a package ships, where it is a genai precision of the experiment."""
        name = self.experiment.package.precision
        return name if name in self.genai else None

    def precisions_of(self, technique: str) -> list[str]:
        """Return the precisions that a run is exported to.

        onnxruntime-genai can't start from a prefix, and an adapter trained on an export's numbers runs beside that one:
        quantizing the merged model would move every weight again.
        """
        own = None if technique == "base" else self.techniques[technique]
        if own and own.export:
            return [name for name in self.experiment.precisions if name in ("fp32", own.export)]
        prefixed = own is not None and not own.merges
        return [name for name in self.experiment.precisions if not (prefixed and name in self.genai)]

    @property
    def remote(self) -> list[str]:
        """Techniques whose weights a platform trains; all that follows is made here."""
        return [name for name, technique in self.techniques.items() if type(technique) is not Technique]

    @property
    def exported(self) -> dict[str, list[str]]:
        """The precisions of each technique and of the untuned model."""
        return {name: self.precisions_of(name) for name in ("base", *self.techniques)}

    def _read_all(self, kind: str, names: list[str], model_of: Callable[[Any], type[BaseModel]]) -> dict[str, Any]:
        folder = f"{kind}s"
        known, found = self._files(folder), {}
        for name in names:
            place = f"config/{folder}/{name}.yaml"
            if name not in known:
                near = difflib.get_close_matches(name.lower(), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
                raise UserError(f"{folder}: there is no {kind} {name!r} ({place}); {hint}")
            content = read_yaml(known[name])
            found[name] = validated(model_of(content), content, place)
        return found

    def _files(self, folder: str) -> dict[str, Path]:
        """Return the files of a folder of config/ by their names, the project's own before a preset."""
        places = (self.presets, self.root)
        return {path.stem: path for place in places for path in (place / "config" / folder).glob("*.yaml")}

    def _leave_out(self) -> str:
        """Leave out what this system can't train, and return a sentence about it, or an empty string."""
        out = [name for name, one in self.techniques.items() if one.engine.type == "deepspeed"]
        if sys.platform == "linux" or not out:
            return ""
        reason = f"DeepSpeed runs on Linux only (WSL is Linux), and this is {sys.platform}: {', '.join(out)}"
        self.techniques = {name: one for name, one in self.techniques.items() if name not in out}
        if not self.techniques and not self.hosted:
            raise UserError(f"techniques: {reason} can't be trained here, and the experiment has no other technique")
        self.experiment = self.experiment.without(out)
        return f"{reason} left out"

    @cached_property
    def families(self) -> dict[str, str]:
        """Each model's family by transformers' name, its model_type: that of a local directory is in its config.json."""
        local = {name: read_json(self.root / one.path / "config.json") for name, one in self.models.items() if one.path}
        return {name: local.get(name, {}).get("model_type") or one.model_type for name, one in self.models.items()}

    def technique_recipe(self, model: str, technique: str) -> dict[str, Any]:
        """Return a technique's parameters for a model, with the names of the layers that it changes.

        Raises:
            UserError: its file doesn't say which they are in this family.
        """
        family = self.families[model]
        try:
            return self.techniques[technique].recipe(family)
        except KeyError:
            raise UserError(
                f"config/techniques/{technique}.yaml: adapter.options.target_modules: the layers of {model}, whose model_type is {family}, aren't known: list their names, or give one list per model_type; all-linear knows {', '.join(LINEAR_LAYERS)}"
            ) from None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every model with the scenarios whose rows it reads."""
        properties = self.experiment.properties
        measured = [(properties.model, properties.scenario)] if properties else []
        return list(dict.fromkeys([*product(self.experiment.models, self.experiment.scenarios), *measured]))

    @property
    def property_runs(self) -> list[tuple[str, int, int]]:
        """Return (technique, ranks, round) of each properties run: every round first, then more ranks."""
        properties = self.experiment.properties
        if not properties:
            return []
        own = {name: self.techniques[name].world_size for name in measured_techniques(self.techniques)}
        rounds = [(name, own[name], number + 1) for number in range(properties.rounds) for name in own]
        shared = properties.ranks if len(properties.ranks) > 1 else []
        return list(dict.fromkeys([*rounds, *((name, ranks, 1) for ranks in shared for name in own)]))

    @cached_property
    def built(self) -> list[str]:
        return [name for name, model in self.models.items() if model.build]
