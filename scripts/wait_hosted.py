"""Wait until a hosted job ends, telling its progress; killed, it goes on where the service is by then."""

import argparse
import json
import time
from pathlib import Path

from snaketune.core import errors, files
from snaketune.core.errors import UserError
from snaketune.platforms.hosted.connect import connect
from snaketune.platforms.hosted.service import Service, read_job


def waited(service: Service, job: str, poll_seconds: float) -> str:
    """What the service says of a job that succeeded.

    Raises:
        UserError: it failed or was cancelled there, or the service can't be asked any more.
    """
    told: set[str] = set()
    before = ("", "")
    while True:
        status, words = service.state(job)
        for event in service.events(job):
            key = str(event.get("id", event))
            if key not in told:
                told.add(key)
                print(event.get("message", event), flush=True)
        if (status, words) != before:
            print(f"{job}: {words}", flush=True)
            before = (status, words)
        if status == "succeeded":
            return words
        if status != "running":
            raise UserError(
                f"{service.host} ended the job {job} as {status} ({words}). Mend what it names; then raise `attempt` in the technique's file, as a job is submitted only once"
            )
        time.sleep(poll_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True, help='JSON: {"service"}')
    parser.add_argument("--job", type=Path, required=True, help="job.json, of submit_hosted.py")
    parser.add_argument("--poll-seconds", type=float, default=30, help="between two questions")
    parser.add_argument("--output", type=Path, required=True, help="finished.json")
    parser.add_argument("--events", type=Path, required=True, help="events.jsonl: what the service logged")
    arguments = parser.parse_args()

    service = connect(arguments.recipe["service"])
    job = read_job(arguments.job, service.host)
    words = waited(service, job, arguments.poll_seconds)
    files.write_jsonl(arguments.events, service.events(job))
    files.write_json(arguments.output, {"id": job, "status": words})


if __name__ == "__main__":
    errors.run(main)
