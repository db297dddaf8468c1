"""Read a dataset of the Hugging Face hub as raw rows."""

from collections.abc import Iterator
from typing import Any

from snaketune.core.errors import UserError
from snaketune.core.layout import SPLITS
from snaketune.data.params import SourceParams
from snaketune.data.raw_rows import Row


def hub_rows(source: SourceParams) -> Iterator[Row]:
    """Yield the rows of a hub dataset; none of its code is run."""
    import datasets

    # Its requests name the version of each framework that it finds, whatever HF_HUB_DISABLE_TELEMETRY says.
    datasets.config.TORCH_AVAILABLE = False
    name, revision = source["hub"], source["revision"] or ""
    for split, theirs in sorted(source["splits"].items(), key=lambda pair: SPLITS.index(pair[0])):
        try:
            loaded = datasets.load_dataset(name, source["configuration"], revision=revision, split=theirs)
        # Wrong names, networks, caches and formats raise exceptions of five packages.
        except Exception as error:
            reason = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
            # Wrong names are FileNotFoundErrors.
            passing = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            raise UserError(
                f"source.hub: {name} ({source['configuration'] or 'default configuration'}, split {theirs}) at revision {revision[:12]} could not be loaded from the Hugging Face hub: {reason}; check the connection and these names",
                passing,
            ) from None
        for number, row in enumerate(loaded, start=1):
            content = {key: _named(value, loaded.features[key]) for key, value in row.items()}
            yield Row(f"{name} {theirs}, row {number}", f"{split}:{number}", split, content)


def _named(value: Any, feature: Any) -> Any:
    """Replace the class numbers in a value by the names of the classes."""
    import datasets

    if value is None:
        return None
    if isinstance(feature, datasets.ClassLabel):
        # Unlabelled rows of the hub have -1.
        return feature.int2str(value) if isinstance(value, int) and value >= 0 else None
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [_named(one, feature.feature) for one in value]
    if isinstance(feature, dict):
        return {key: _named(one, feature[key]) for key, one in value.items()}
    return value
