"""Which exports adapters can be trained on, and shipped beside: `base_precision: export:NAME` of a technique."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from snaketune.config.technique import Technique
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml


def is_weight_only(export: Any) -> bool:
    """Return True for the content of a file of config/exports/ whose linear layers become MatMulNBits."""
    method, options = export.get("method"), export.get("options") or {}
    return method in ("weight-only-int4", "weight-only-int8") or (
        method == "genai" and options.get("weights") in ("int4", "int8")
    )


def check_exported_bases(files: dict[str, Path], techniques: dict[str, Technique], precisions: Collection[str]) -> None:
    """Check that what adapters are trained on is exported, is weight-only and takes adapters.

    Args:
        files: config/exports/ by name.
        precisions: those of the experiment.

    Raises:
        UserError: it isn't or doesn't; says what does.
    """
    for name, technique in techniques.items():
        if not (chosen := technique.export):
            continue
        where = f"config/techniques/{name}.yaml: base_precision: {technique.base_precision}"
        known = {one: read_yaml(path) for one, path in files.items()}
        able = sorted(one for one, content in known.items() if is_weight_only(content))
        if chosen not in known:
            raise UserError(
                f"{where}: there is no config/exports/{chosen}.yaml; adapters can be trained on {', '.join(able)}"
            )
        if chosen not in able:
            raise UserError(
                f"{where}: {chosen} isn't weight-only with 4 or 8 bits (its method is {known[chosen].get('method')}), so it can't carry adapters; {', '.join(able)} can"
            )
        if chosen not in precisions:
            raise UserError(f"{where}: {chosen} isn't exported: add it to `precisions` of the experiment")
