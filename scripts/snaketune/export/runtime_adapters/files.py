"""The files and graph inputs of a switchable base and its adapters, and which belong together.

A switchable linear layer, of floats or of 4 bits, computes y = s * (W (t * x) + B A (t * x)) + bias. By default A
and B have rank 0 and s and t are ones, which leaves the base unchanged.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.core import files, manifest
from snaketune.core.errors import UserError
from snaketune.core.layout import INPUTS_FILE


def parts_of(adapter: dict[str, Any]) -> dict[str, list[str]]:
    """Return which inputs each target module of an adapter (``{"type", "options"}`` of a technique) needs.

    lora_A and lora_B are A and B, transposed; input_scale is t, output_scale s.
    """
    options = adapter["options"]
    if adapter["type"] == "ia3":
        forward = options["feedforward_modules"]
        return {t: ["input_scale" if t in forward else "output_scale"] for t in options["target_modules"]}
    parts = ["lora_A", "lora_B", *(["output_scale"] if options.get("use_dora") else [])]
    return dict.fromkeys(options["target_modules"], parts)


def parts_of_all(adapters: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the inputs that let a base accept any of the adapters."""
    found: dict[str, set[str]] = {}
    for adapter in adapters:
        for target, parts in parts_of(adapter).items():
            found.setdefault(target, set()).update(parts)
    return {target: sorted(parts) for target, parts in sorted(found.items())}


def check_taken(inputs: Iterable[str], switchable: Path) -> None:
    """Raise a UserError if the graph of a switchable base lacks one of these inputs."""
    taken = files.read_json(switchable / INPUTS_FILE)
    if missing := sorted(set(inputs) - taken.keys()):
        raise UserError(
            f"{switchable} has no input {missing[0]}: it was made for other target modules; add the adapter's technique to the experiment and run snakemake to make it again"
        )


def check_base(base: Path, *made: Path) -> None:
    """Raise a UserError if a manifest of ``made`` doesn't name the base's manifest among its inputs."""
    digest = files.sha256(base / "manifest.json")
    for path in made:
        if digest not in manifest.read(path)["inputs"].values():
            raise UserError(
                f"{path.parent} was made from another base than {base} (its manifest.json isn't among the inputs of {path}): an adapter works only with the base it was trained on"
            )
