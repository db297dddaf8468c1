"""Run this workflow on a compute cluster of Azure Machine Learning: submit, wait, fetch.

The job's name is a hash of the job file and of every file of the checkout: submitted twice, it is
one job. Subscription, resource group and workspace come from AZURE_SUBSCRIPTION_ID,
AZURE_RESOURCE_GROUP and AZURE_ML_WORKSPACE, the credential from azure-identity's chain.
"""

import argparse
import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from azure.ai.ml import MLClient, load_job
from azure.ai.ml.entities import AmlCompute
from azure.ai.ml.exceptions import ValidationException
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceResponseError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient
from marshmallow.exceptions import ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snaketune.core import errors, files
from snaketune.core.errors import UserError
from snaketune.platforms import azure_ml_job
from snaketune.platforms.azure_ml_job import Job
from snaketune.platforms.hosted.azure_ml_service import ENDED, connected
from snaketune.platforms.hosted.azure_ml_service import user_errors as for_snakemake
from snaketune.platforms.hosted.service import redacted

# The SDK logs a warning about every experimental class that it loads; none is used here.
logging.getLogger("azure").setLevel(logging.ERROR)


@contextmanager
def user_errors(host: str) -> Iterator[None]:
    """Turn what the SDK raises into one message that names this program."""
    try:
        with for_snakemake(host):
            yield
    except UserError as error:
        raise UserError(str(error).replace("run snakemake again", "run this again")) from None


def loaded(document: dict[str, Any], directory: Path) -> Any:
    """Return the document as the SDK's job, checked by the SDK's schema and beyond.

    Raises:
        UserError: the job couldn't run.
    """
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    try:
        job = load_job(path)
    except (ValidationException, ValidationError) as error:
        raise UserError(f"the job isn't valid: {redacted(getattr(error, 'message', error))[:600]}") from None
    # The SDK accepts a job without compute, and a command with an unknown input.
    named = {kind: set(re.findall(rf"\$\{{\{{{kind}\.(\w+)\}}\}}", job.command)) for kind in ("inputs", "outputs")}
    given = {"inputs": set(job.inputs), "outputs": set(job.outputs)}
    wrong = [f"{kind}.{name}" for kind in named for name in sorted(named[kind] ^ given[kind])]
    if wrong or not job.compute:
        raise UserError(f"the job isn't valid: {', '.join(wrong) or 'compute'} is named or given, but not both")
    return job


def check_compute(client: MLClient, job: Job, host: str) -> None:
    """Raise a UserError if the workspace has no such cluster, or one with other machines."""
    with user_errors(host):
        try:
            found = client.compute.get(job.compute)
        except ResourceNotFoundError:
            raise UserError(
                f"compute: {host} has no {job.compute}; nothing was sent. Create the cluster, or name another"
            ) from None
    size = found.size if isinstance(found, AmlCompute) else None
    if size is None or size.lower() != job.instance_type.lower():
        raise UserError(
            f"compute: {job.compute} has {size or found.type} machines, not {job.instance_type}; nothing was sent. Correct instance_type, or name another cluster"
        )


def status_of(client: MLClient, key: str, host: str) -> str | None:
    with user_errors(host):
        try:
            found = client.jobs.get(key).status
            # An enumeration of strings, whose str() would be its Python name.
            return str(getattr(found, "value", found))
        except ResourceNotFoundError:
            return None


def submit(client: MLClient, sdk_job: Any, key: str, host: str) -> None:
    with user_errors(host):
        try:
            client.jobs.create_or_update(sdk_job)
        except (HttpResponseError, ServiceResponseError):
            # Names are unique: after a lost answer, or in a race, the job exists.
            if not status_of(client, key, host):
                raise


def wait(client: MLClient, key: str, host: str, seconds: float) -> str:
    """Return the state that a job ends in, and print each change."""
    last = None
    while True:
        found = status_of(client, key, host)
        if found is None:
            raise UserError(f"{host} has no job {key}: submit it with --confirm")
        if found != last:
            print(f"{key}: {found}", flush=True)
        if found in ENDED:
            return found
        last = found
        time.sleep(seconds)


def fetch(client: MLClient, uri: str, directory: Path, host: str) -> int:
    """Download a folder of a blob datastore and return the number of files.

    Raises:
        UserError: the folder is empty, or a file would be written outside of ``directory``.
    """
    _, _, place = uri.partition("datastores/")
    store, _, prefix = place.partition("/paths/")
    with user_errors(host):
        found = client.datastores.get(store)
        account = f"{found.protocol}://{found.account_name}.blob.{found.endpoint}"
        container = ContainerClient(account, found.container_name, credential=DefaultAzureCredential())
        names = [blob.name for blob in container.list_blobs(name_starts_with=f"{prefix}/")]
        targets = {name: (directory / name.removeprefix(f"{prefix}/")).resolve() for name in names}
        for name, target in targets.items():
            if not target.is_relative_to(directory.resolve()):
                raise UserError(f"{uri}: {name} would be written outside of {directory}; nothing was downloaded")
        for name, target in targets.items():
            with files.written_whole(target) as aside, aside.open("wb") as file:
                container.download_blob(name).readinto(file)
    if not names:
        raise UserError(f"{uri} is empty: the job wrote no results; see its logs in the workspace")
    return len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, help="a job file, such as profiles/azure-ml/job.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print the job and what would be uploaded; send nothing")
    parser.add_argument(
        "--confirm", action="store_true", help="submit the job: it uploads the checkout and costs money"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait until the job ends, and print each change of its state"
    )
    parser.add_argument(
        "--fetch", type=Path, metavar="DIRECTORY", help="an empty or new directory to download the results to"
    )
    parser.add_argument("--poll-seconds", type=float, default=30, help="between two requests for its state")
    arguments = parser.parse_args()
    root = Path.cwd()
    job = azure_ml_job.read(arguments.job, root)
    names = azure_ml_job.checkout(root)
    key = azure_ml_job.key_of(job, root, names)
    if arguments.fetch and arguments.fetch.is_dir() and any(arguments.fetch.iterdir()):
        raise UserError(f"{arguments.fetch} isn't empty: fetched results would mix with it; name a new directory")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "code").mkdir()
        code = azure_ml_job.snapshot(root, names, Path(scratch) / "code")
        document = azure_ml_job.document(job, key, code)
        sdk_job = loaded(document, Path(scratch))
        if arguments.dry_run:
            shown = yaml.safe_dump(document, sort_keys=False, width=1000).replace(str(code), ".")
            print(
                f"{shown}# {len(names)} files would be uploaded, {sum((root / name).stat().st_size for name in names):,} bytes:"
            )
            print("".join(f"# {name}\n" for name in names), end="")
            return
        if not (arguments.confirm or arguments.wait or arguments.fetch):
            raise UserError("nothing was sent: --dry-run shows what would be sent, --confirm sends it")
        client, host = connected()
        if arguments.confirm:
            if state := status_of(client, key, host):
                print(f"{key}: {host} has this job already ({state}); set a higher `attempt` to run it again")
            else:
                check_compute(client, job, host)
                submit(client, sdk_job, key, host)
                print(f"{key}: sent to {host}, {len(names)} files")
    ended = wait(client, key, host, arguments.poll_seconds) if arguments.wait or arguments.fetch else None
    if arguments.fetch:
        count = fetch(client, f"{job.results.rstrip('/')}/{key}", arguments.fetch, host)
        print(f"{arguments.fetch}: {count} files")
    if ended not in (None, "Completed"):
        print(f"error: {key} ended as {ended}: see its logs in the workspace", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    errors.run(main)
