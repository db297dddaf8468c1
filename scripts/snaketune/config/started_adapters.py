"""An adapter that training goes on from: it must be of the same method, options and base."""

from pathlib import Path
from typing import Any

from snaketune.config.model import Model
from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.layout import ADAPTER_FILES


def start_files(directory: str) -> list[str]:
    """Return the two files that peft writes of an adapter."""
    return [f"{directory.rstrip('/')}/{Path(name).name}" for name in ADAPTER_FILES]


def check_start(place: str, root: Path, start: str, adapter: dict[str, Any], models: dict[str, Model]) -> None:
    """Raise a UserError unless an adapter can be trained further.

    Whether it was trained on the same weights is checked by their hash when the job starts.

    Args:
        place: the key that names ``start``, for messages.
        adapter: method and options of the technique, as in its recipe.
        models: those of the experiment, by name.
    """
    for path in start_files(start):
        if not (root / path).is_file():
            raise UserError(f"{place}: {path}: no such file; expected an adapter directory as written by peft")
    there = read_json(root / start / "adapter_config.json")
    differ = {"type": (str(there.get("peft_type")).lower(), adapter["type"])}
    if len(set(differ["type"])) == 1:
        differ = {
            name: (there[name], value)
            for name, value in adapter["options"].items()
            if name in there and not name.startswith("init_") and not name.endswith("dropout")
            if _plain(there[name]) != _plain(value)
        }
    if differ:
        name, (found, asked) = next(iter(differ.items()))
        raise UserError(
            f"{place}: {start} has {name}: {found}, but this technique has {name}: {asked}: training can only continue with the same method and options"
        )
    base = there.get("base_model_name_or_path") or ""
    for name, model in models.items():
        other_hub = model.hub and base.count("/") == 1 and base.lower() != model.hub.lower()
        other_name = base.startswith("results/models/") and base.split("/")[2] != name
        if other_hub or other_name:
            raise UserError(f"{place}: {start} was trained on {base}, not on {name}: an adapter fits only its own base")


def _plain(value: Any) -> Any:
    """Return a value as its JSON: peft's sets have no order."""
    return sorted(value, key=str) if isinstance(value, list | set | tuple) else value
