"""Wait until a hosted job ends, and print its progress; an interrupted wait resumes."""

import time

from snaketune.core import cli, errors, files
from snaketune.core.errors import UserError
from snaketune.platforms.hosted.connect import connect
from snaketune.platforms.hosted.service import Service, read_job


def wait_for_end(service: Service, job: str, poll_seconds: float) -> str:
    """Wait for a job to succeed, and return the service's words about it.

    Raises:
        UserError: the job failed or was cancelled, or the service can't be reached.
    """
    printed: set[str] = set()
    before = ("", "")
    while True:
        status, words = service.state(job)
        for event in service.events(job):
            key = str(event.get("id", event))
            if key not in printed:
                printed.add(key)
                print(event.get("message", event), flush=True)
        if (status, words) != before:
            print(f"{job}: {words}", flush=True)
            before = (status, words)
        if status == "succeeded":
            return words
        if status != "running":
            raise UserError(
                f"{service.host} ended the job {job} as {status} ({words}). Fix the cause, then raise `attempt` in the technique's file, because a job is submitted only once"
            )
        time.sleep(poll_seconds)


def main() -> None:
    parser = cli.job_parser(
        __doc__,
        "service",
        job="job.json from submit_hosted.py",
        output="finished.json",
        events="events.jsonl: what the service logged",
    )
    parser.add_argument("--poll-seconds", type=float, default=30, help="between two requests")
    arguments = parser.parse_args()

    service = connect(arguments.recipe["service"])
    job = read_job(arguments.job, service.host)
    words = wait_for_end(service, job, arguments.poll_seconds)
    files.write_jsonl(arguments.events, service.events(job))
    files.write_json(arguments.output, {"id": job, "status": words})


if __name__ == "__main__":
    errors.run(main)
