"""Write an AI Toolkit project that trains a run's recipe with Olive.

A base model on the hub is downloaded by the project itself, at its pinned commit; any other is
copied into it. What Olive can't train is reported in one message.
"""

import shutil
from pathlib import Path
from typing import Any

import jinja2

from snaketune.core import cli, errors, files, manifest
from snaketune.core.layout import MODEL_FILES
from snaketune.core.locks import pins
from snaketune.data.formats import beyond_texts
from snaketune.platforms.olive import olive_config, project


def rows_of(data: Path, split: str) -> list[dict[str, Any]]:
    """Return the chats or texts to train on, without ids and references.

    Raises:
        UserError: a row has more than texts, which Arrow's columns would change.
    """
    rows = files.read_jsonl(data / f"{split}.jsonl")
    for number, row in enumerate(rows, start=1):
        if "messages" in row and (more := beyond_texts(row)):
            raise errors.UserError(
                f"{data / split}.jsonl, line {number}: projects hold texts only, found {more}: leave it out"
            )
    return [{key: row[key] for key in ("messages", "text") if key in row} for row in rows]


def remote_job(download: str) -> dict[str, Any]:
    """Return what AI Toolkit runs in a container that mounts the project; it fills in the rest while provisioning."""
    known = ("SUBSCRIPTION_ID", "RESOURCE_GROUP_NAME", "STORAGE_ACCOUNT_NAME", "FILE_SHARE_NAME", "ACA_JOB_NAME")
    commands = [
        "cd /mount",
        "pip install -r ./setup/requirements.txt",
        download,
        "python3 ./finetuning/invoke_olive.py",
    ]
    return {**dict.fromkeys(known), "COMMANDS": [command for command in commands if command]}


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        "cell, training (parameters of train.py), model, scenario, layers, description",
        "--data-directory --output-directory",
        templates="folder with the programs and the README",
        lock="lock file of the training environment",
    )
    parser.add_argument("--base-directory", type=Path, help="a model that isn't on the hub, to copy")
    arguments = parser.parse_args()
    recipe, data, out = arguments.recipe, arguments.data_directory, arguments.output_directory
    training, model, scenario = recipe["training"], recipe["model"], recipe["scenario"]

    name, _, technique, seed = recipe["cell"]
    if reason := olive_config.refusal(training, set(recipe["layers"])):
        raise errors.UserError(f"{technique} can't be a project of AI Toolkit: {reason}")
    manifest.prove(data / "manifest.json", "train.jsonl", "validation.jsonl")
    inputs, copied = [data / "manifest.json"], dict[str, Path]()
    cache = project.model_cache(name, model["hub"])
    if not model["hub"]:
        manifest.prove(arguments.base_directory / "manifest.json", *MODEL_FILES)
        inputs.append(arguments.base_directory / "manifest.json")
        copied = {f"{cache}/{file}": arguments.base_directory / file for file in MODEL_FILES}
        files.need_space(out, sum(path.stat().st_size for path in copied.values()), "the project's copy of the model")
    copied |= {place: arguments.templates / source for place, source in project.PROGRAMS.items()}
    # Safe to interpolate: the configuration allows only letters, digits, dots, dashes and one slash.
    wanted = "--include '*.safetensors' '*.json' '*.jinja' '*.model'"
    download = f"hf download {model['hub']} --revision {model['revision']} {wanted} --local-dir ./{cache}"
    download = download if model["hub"] else ""
    configuration = olive_config.configuration(training, cache, scenario["max_tokens"])
    rows = {split: rows_of(data, split) for split in ("train", "validation")}
    [[kind, trained]] = configuration["passes"].items()
    readme = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False).from_string(  # noqa: S701
        (arguments.templates / "README.md.j2").read_text(encoding="utf-8")
    )
    text = readme.render(
        **{"model": name, "scenario": recipe["cell"][1], "technique": technique, "seed": seed},
        **{"description": recipe["description"], "pass": trained["type"], "olive": project.OLIVE},
        **{"download": download, "output": f"models/{kind}", "rows": {split: len(rows[split]) for split in rows}},
        licences={"model": model["licence"], "data": scenario["licence"]},
    )
    for split, lines in rows.items():
        files.write_jsonl(out / f"dataset/{split}.jsonl", lines)
    files.write_json(out / "finetuning/olive-config.json", configuration)
    files.write_json(out / "infra/finetuning.config.json", remote_job(download))
    requirements = [*pins(arguments.lock, project.LOCKED), project.OLIVE]
    files.write_text(out / "setup/requirements.txt", "".join(f"{line}\n" for line in requirements))
    files.write_text(out / "README.md", text + "\n")
    for place, source in copied.items():
        with files.written_whole(out / place) as aside:
            shutil.copyfile(source, aside)
    named = {*project.FILES, *copied}
    manifest.record(out, recipe, inputs, [out / place for place in named])
    print(f"{out}: a project of AI Toolkit that trains {trained['type']} on {len(rows['train'])} rows")


if __name__ == "__main__":
    errors.run(main)
