"""Fetch the results of a finished hosted job: the tuned model's name, its loss curve, tokens and time.

What a service doesn't report stays empty, never zero.
"""

from snaketune.core import cli, errors, files, manifest
from snaketune.platforms.hosted.connect import connect
from snaketune.platforms.hosted.service import read_job


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        "service",
        run_directory="with job.json, finished.json, events.jsonl",
        data_directory="the rows that were sent",
    ).parse_args()
    run = arguments.run_directory

    service = connect(arguments.recipe["service"])
    found = service.outcome(read_job(run / "job.json", service.host))
    files.write_jsonl(run / "train.jsonl", found.curve)
    files.write_json(run / "model.json", {"model": found.model, "host": service.host})
    files.write_json(run / "resources.json", {"train_tokens": found.train_tokens, "seconds": found.train_seconds})
    names = ("job.json", "finished.json", "events.jsonl", "train.jsonl", "model.json", "resources.json")
    inputs = [arguments.data_directory / "manifest.json"]
    manifest.record(run, arguments.recipe, inputs, [run / name for name in names])
    print(f"{found.model}: {found.train_tokens or 'unknown'} tokens, {found.train_seconds or 'unknown'} s")


if __name__ == "__main__":
    errors.run(main)
