"""Convert an Olive configuration, from an AI Toolkit project or your own, to a technique.

Olive's defaults are written out in the technique. What a technique has no key for is listed on
standard error, each key with the reason.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.config.adapter import LINEAR_LAYERS
from snaketune.config.technique import Technique
from snaketune.config.validation import validated
from snaketune.core import errors, files
from snaketune.data import strict_json
from snaketune.platforms.olive import olive_config

SCHEMA = "# yaml-language-server: $schema=../schemas/technique.schema.json\n"


def content_of(path: Path) -> dict[str, Any]:
    """Read the object of a JSON file.

    Raises:
        UserError: it is missing, not UTF-8 or not JSON; the message names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise errors.UserError(f"{path}: no such file; expected Olive's olive-config.json") from None
    except UnicodeDecodeError:
        raise errors.UserError(f"{path}: not UTF-8; save the file as UTF-8") from None
    try:
        return strict_json.checked(strict_json.parsed(text))
    except ValueError as error:
        *line, fault = error.args
        place = f"{path}, line {line[0]}" if line else path
        hint = "; a template's <placeholders> must be filled in" if "<" in text else ""
        raise errors.UserError(f"{place}: {fault}{hint}") from None


def technique(recipe: dict[str, Any], description: str, layers: set[str], where: str) -> dict[str, Any]:
    """Return the content of a technique file, checked as any other.

    Raises:
        UserError: the technique is invalid.
    """
    options = recipe["adapter"]["options"]
    options = {key: value for key, value in options.items() if key in ("r", "lora_alpha", "lora_dropout") or value}
    options = {**options, "target_modules": options.get("target_modules") or sorted(layers)}
    # The default of every technique.
    options.pop("init_lora_weights")
    keys = ("learning_rate", "weight_decay", "warmup_share", "max_grad_norm", "micro_batch_rows")
    base = {"base_precision": "nf4"} if recipe["base_precision"] == "nf4" else {}
    adapter = {"type": "lora", "options": options}
    made = {"description": description, "adapter": adapter, **base, **{key: recipe[key] for key in keys}}
    validated(Technique, made, where)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", type=Path, help="olive-config.json")
    parser.add_argument("--output", type=Path, help="a new config/techniques/NAME.yaml; without it, print")
    parser.add_argument("--description", help="description of the technique; by default it names the file")
    parser.add_argument(
        "--model-type",
        choices=sorted(LINEAR_LAYERS),
        default="phi3",
        help="selects the linear layers if the file has no target_modules",
    )
    arguments = parser.parse_args()
    where = arguments.configuration
    if arguments.output and arguments.output.exists():
        raise errors.UserError(f"{arguments.output} exists already: choose another name, or delete it")
    recipe, left = olive_config.read(content_of(where), str(where))
    layers = set(LINEAR_LAYERS[arguments.model_type])
    made = technique(recipe, arguments.description or f"As {where.name} trains it with Olive.", layers, str(where))
    text = SCHEMA + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=1000)
    shared = f"training: {{epochs: {recipe['epochs']}, batch_rows: {recipe['batch_rows']}}}"
    text += (
        f"# Set in the experiment, because it is the same for every technique: {shared}, seeds: [{recipe['seed']}]\n"
    )
    if arguments.output:
        files.write_text(arguments.output, text)
    else:
        print(text, end="")
    for line in left:
        print(f"not carried over: {line}", file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
