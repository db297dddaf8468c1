"""Write the input of a KAITO operator for a run: tuning.yaml (ConfigMap and Workspace) and train.jsonl."""

import yaml

from snaketune.core import cli, errors, files, manifest
from snaketune.platforms.kaito.manifests import MANIFEST, TRAIN_FILE, messages_of, tuning_manifests


class Dumper(yaml.SafeDumper):
    """Writes strings of several lines, such as a file in a ConfigMap, in block style."""


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def main() -> None:
    arguments = cli.job_parser(
        __doc__, "cell, training, platform, batches", "--data-directory --output-directory"
    ).parse_args()
    recipe, data, out = arguments.recipe, arguments.data_directory, arguments.output_directory

    manifest.prove(data / "manifest.json", "train.jsonl")
    rows = messages_of(data / "train.jsonl")
    with files.written_together(out) as aside:
        files.write_jsonl(aside / TRAIN_FILE, rows)
        manifests = tuning_manifests(recipe, len(rows), files.sha256(aside / TRAIN_FILE))
        (aside / MANIFEST).write_text(
            yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False, allow_unicode=True), "utf-8"
        )
    manifest.record(out, recipe, [data / "manifest.json"], [out / TRAIN_FILE, out / MANIFEST])
    print(f"{manifests[1]['metadata']['name']}: {out / MANIFEST} and {len(rows)} rows in {out / TRAIN_FILE}")


if __name__ == "__main__":
    errors.run(main)
