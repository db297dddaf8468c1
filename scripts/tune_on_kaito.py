"""Train a run with a KAITO operator: create its ConfigMap and Workspace once, wait, fetch the adapter.

An interrupted run resumes: names are hashes of the parameters, existing objects aren't created
again, and what was fetched is kept in --work.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import yaml

from snaketune.core import errors, files, layout
from snaketune.core.errors import UserError
from snaketune.platforms.kaito.cluster_client import Cluster
from snaketune.platforms.kaito.manifests import TRAIN_FILE
from snaketune.platforms.kaito.technique import fill_placeholders
from snaketune.platforms.kaito.workspaces import ensure, read, seconds_of, wait

STATE, DONE = "trainer_state.json", "fine_tuning_completed.txt"


def fetch(source: Path, out: Path, image: str | None, patience: float) -> None:
    """Copy the adapter and the trainer's log from the volume; a network share may show them seconds late.

    Raises:
        UserError: they are missing, or the adapter is in a format that can run code.
    """
    until = time.monotonic() + patience
    while not (source / DONE).exists() and time.monotonic() < until:
        time.sleep(min(1.0, patience))
    if not (source / DONE).exists():
        place = (
            f"KAITO pushed {image}: unpack its files into"
            if image
            else "KAITO has finished, but this machine doesn't see its files: mount or copy them into"
        )
        raise UserError(f"{place} {source}, then run snakemake again ({DONE} is missing there)")
    states = sorted(source.glob(f"checkpoint-*/{STATE}"), key=lambda path: int(path.parent.name.split("-")[1]))
    if not states:
        raise UserError(f"{source}: no checkpoint-*/{STATE}, the log with the loss of each step")
    for name in layout.ADAPTER_FILES:
        if not (source / name).is_file():
            raise UserError(
                f"{source}: no {name}; other formats (.bin, .pt) can run code when they are loaded and aren't accepted"
            )
    with files.written_together(out) as aside:
        for path in (*(source / name for name in layout.ADAPTER_FILES), states[-1]):
            shutil.copyfile(path, aside / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="tuning.yaml from write_kaito.py")
    parser.add_argument("--platform", type=json.loads, required=True, help="cell and platform of the technique as JSON")
    parser.add_argument("--work", type=Path, default=Path("work/kaito"), help="keeps what was fetched")
    parser.add_argument("--poll-seconds", type=float, default=30, help="between two requests for its state")
    parser.add_argument("--confirm", action="store_true", help="without it nothing is sent to the cluster")
    parser.add_argument("--output-directory", type=Path)
    arguments = parser.parse_args()
    config, wanted = yaml.safe_load_all(arguments.manifest.read_text(encoding="utf-8"))
    name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    platform = fill_placeholders(arguments.platform["platform"], arguments.platform["cell"], name)
    kept, volume = arguments.work / name, Path(platform["output"]["path"])

    if not (kept / "status.json").exists():
        if not arguments.confirm:
            raise UserError(
                f"nothing is sent to a cluster without `publish: {{confirm: true}}` in the experiment; {arguments.manifest} shows what would be sent"
            )
        files.claim(kept)
        cluster = Cluster(namespace, platform["context"], min(1.0, arguments.poll_seconds))
        if read(cluster, "Workspace", name) is None and (volume / layout.ADAPTER_FILES[0]).exists():
            raise UserError(
                f"{volume} holds an adapter of another run than {name}: move it away, because KAITO would overwrite it"
            )
        if rows := platform["data"]["volume"]:
            target = Path(rows["path"]) / name / TRAIN_FILE
            train = arguments.manifest.with_name(TRAIN_FILE)
            # Left alone if it is whole: a job may be reading it.
            if not target.exists() or files.sha256(target) != files.sha256(train):
                with files.written_whole(target) as aside:
                    shutil.copyfile(train, aside)
        if platform["output"]["volume"]:
            volume.mkdir(parents=True, exist_ok=True)
        ensure(cluster, config)
        ensure(cluster, wanted)
        status = wait(cluster, name, arguments.poll_seconds)
        fetch(volume, kept, platform["output"]["image"], 4 * arguments.poll_seconds)
        status_file = {"workspace": name, "namespace": namespace, "seconds": seconds_of(status)}
        status_file |= {key: platform[key] for key in ("instance_type", "gpus")}
        files.write_json(kept / "status.json", status_file)
    with files.written_together(arguments.output_directory) as aside:
        for path in kept.iterdir():
            shutil.copyfile(path, aside / path.name)


if __name__ == "__main__":
    errors.run(main)
