"""Start one fine-tuning job at a hosted service, exactly once, and write its id.

The job's name is a hash of its parameters and its rows. A job of that name at the service (created
by an interrupted or concurrent run) is reused.
"""

import json
from pathlib import Path
from typing import Any

from snaketune.core import cli, errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.platforms.hosted.connect import connect
from snaketune.platforms.hosted.service import SPLITS, Service, key_of


def plan(key: str, data: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what would be sent, and its rough cost at the user's own price."""
    sent = {}
    for split in SPLITS:
        path = data / f"{split}.jsonl"
        rows = files.read_jsonl(path)
        characters = sum(len(message["content"]) for row in rows for message in row["messages"])
        sent[split] = {"rows": len(rows), "bytes": path.stat().st_size, "characters": characters}
    tokens = round(sent["train"]["characters"] / recipe["characters_per_token"] * recipe["epochs"])
    price = recipe["price"]
    cost = price and round(tokens / 1e6 * price["per_million_training_tokens"], 4)
    return {
        "key": key,
        **{name: recipe[name] for name in ("service", "hyperparameters", "epochs", "seed", "attempt")},
        "sent": sent,
        "estimated_training_tokens": tokens,
        "estimated_cost": {"amount": cost, "currency": price["currency"]} if price else None,
        "how": f"characters of the training rows / {recipe['characters_per_token']:g} × {recipe['epochs']} epochs"
        + ("" if price else "; set `price` in the technique for a cost"),
    }


def submit_once(service: Service, key: str, data: Path, recipe: dict[str, Any]) -> str:
    """Return the id of the only job with this key; it is created unless the service has it.

    Raises:
        UserError: the service refuses it or can't be reached.
    """
    if found := service.find(key):
        print(f"the service has this job already: {found}")
        return found
    service.check()
    service.create(key, data, recipe)
    # A concurrent run may have created it too: every run that looks now keeps the oldest.
    found = service.find(key)
    if found is None:
        raise UserError(
            f"{service.host} accepted the job {key} but doesn't list it yet: run snakemake again in a minute"
        )
    return found


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        "service, hyperparameters, epochs, seed",
        data_directory="what convert_hosted.py wrote",
        output="job.json; with --dry-run, the plan",
    )
    parser.add_argument("--confirm", action="store_true", help="without it nothing is sent")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be sent and what it might cost")
    arguments = parser.parse_args()
    recipe, data = arguments.recipe, arguments.data_directory
    manifest.prove(data / "manifest.json")
    key = key_of(recipe, data)
    if arguments.dry_run:
        found = plan(key, data, recipe)
        files.write_json(arguments.output, found)
        print(json.dumps(found, indent=1))
        return
    if not arguments.confirm:
        raise UserError(
            "nothing was sent: hosted techniques upload your rows and cost money. `snakemake plan_hosted` shows what would be sent; then set publish: {confirm: true} in the experiment"
        )
    files.claim(Path("work/hosted") / key)
    service = connect(recipe["service"])
    job = submit_once(service, key, data, recipe)
    files.write_json(
        arguments.output, {"id": job, "key": key, "host": service.host, "model": recipe["service"]["model"]}
    )
    print(f"{service.host}: {job}")


if __name__ == "__main__":
    errors.run(main)
