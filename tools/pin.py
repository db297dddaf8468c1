"""Pin a model on the Hugging Face Hub: write config/models/NAME.yaml with its commit and the sizes that plans use.

The Hub is asked for its newest commit (or --revision) and its config.json; no weights are downloaded.
An existing file keeps its description, its licence and the comments at its top.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
from fetch_model import read_configuration
from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.config.model import Model, Sizes
from snaketune.config.validation import validated
from snaketune.core import errors
from snaketune.core.errors import UserError
from snaketune.core.files import read_yaml, write_text
from snaketune.core.quantized import refuse_quantized
from snaketune.data.hub_download import commit_of, download

SCHEMA = "# yaml-language-server: $schema=../schemas/model.schema.json\n"


def sizes(config: Any) -> dict[str, Any]:
    """Return the sizes of a transformers configuration, without those that follow from others.

    Raises:
        UserError: it isn't that of a decoder.
    """
    found: dict[str, Any] = {key: getattr(config, key, None) for key in Sizes.model_fields}
    missing = [key for key in ("hidden_size", "num_hidden_layers", "num_attention_heads") if found[key] is None]
    if missing:
        raise UserError(
            f"its config.json ({config.model_type}) has no {missing[0]}: choose a model that generates text"
        )
    if found["head_dim"] == found["hidden_size"] // found["num_attention_heads"]:
        del found["head_dim"]
    return {key: value for key, value in found.items() if value is not None}


def pinned(hub: str, revision: str) -> dict[str, Any]:
    """Return what config/models/ says of a model on the hub."""
    commit, licence = commit_of(hub, revision)
    source = download(hub, commit, ["config.json"])
    refuse_quantized(source)
    with tempfile.TemporaryDirectory() as out:
        config = read_configuration(source, Path(out))
    return {
        "description": f"{hub.rsplit('/', 1)[-1]}.",
        "licence": licence,
        "model_type": config.model_type,
        "hub": hub,
        "revision": commit,
        "config": sizes(config),
    }


def text(content: dict[str, Any], old: str) -> str:
    """Return a file of config/models/ below the comments at the top of the ``old`` one, with the sizes on one line."""
    top = itertools.takewhile(lambda line: line.startswith("#") or not line.strip(), old.splitlines(keepends=True))
    return ("".join(top) or SCHEMA) + yaml.safe_dump(
        content, sort_keys=False, default_flow_style=None, width=sys.maxsize, allow_unicode=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hub", metavar="OWNER/NAME")
    parser.add_argument("--name", help="name of the file (default: the repository's name in lower case)")
    parser.add_argument("--revision", default="main", help="a branch, tag or commit (default: the newest commit)")
    arguments = parser.parse_args()
    name = arguments.name or arguments.hub.rsplit("/", 1)[-1].lower()
    path = Path("config/models") / f"{name}.yaml"
    old = read_yaml(path) if path.exists() else {}
    if old and old.get("hub") != arguments.hub:
        raise UserError(f"{path} is another model: choose a name for this one with NAME=…")
    found = pinned(arguments.hub, arguments.revision)
    content = found | {key: old[key] for key in ("description", "licence") if key in old}
    validated(Model, content, str(path))
    write_text(path, text(content, path.read_text(encoding="utf-8") if path.exists() else ""))
    print(f"{path}: {arguments.hub} at {content['revision']}")
    if content["model_type"] not in LINEAR_LAYERS:
        print(
            f"all-linear doesn't know the layers of {content['model_type']}: name them in the technique (target_modules)"
        )


if __name__ == "__main__":
    errors.run(main)
