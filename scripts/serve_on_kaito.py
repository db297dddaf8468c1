"""Write the Workspace that serves a run's adapter with KAITO; with --confirm, create it."""

import shutil
from pathlib import Path

import yaml

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.platforms.kaito.manifests import serving_manifest
from snaketune.platforms.kaito.technique import fill_placeholders


def main() -> None:
    parser = cli.job_parser(
        __doc__, "cell, serving", "--output-directory", run_directory="of the run whose adapter is served"
    )
    parser.add_argument("--confirm", action="store_true", help="create the Workspace; without it nothing is sent")
    arguments = parser.parse_args()
    recipe, run, out = arguments.recipe, arguments.run_directory, arguments.output_directory

    manifest.prove(run / "manifest.json", *(f"adapter/{name}" for name in layout.ADAPTER_FILES))
    adapter = [run / "adapter" / name for name in layout.ADAPTER_FILES]
    workspace = serving_manifest(recipe, files.sha256(adapter[0]))
    name = workspace["metadata"]["name"]
    serving = fill_placeholders(recipe["serving"], recipe["cell"], name)
    if arguments.confirm:
        from snaketune.platforms.kaito.cluster_client import Cluster
        from snaketune.platforms.kaito.workspaces import ensure

        if serving["volume"]:
            with files.written_together(Path(serving["volume"]["path"])) as aside:
                for path in adapter:
                    shutil.copyfile(path, aside / path.name)
        ensure(Cluster(serving["namespace"], serving["context"], 1.0), workspace)
    files.write_text(out / "serving.yaml", yaml.safe_dump(workspace, sort_keys=False, allow_unicode=True))
    manifest.record(out, recipe, [run / "manifest.json"], [out / "serving.yaml"])
    print(f"{name}: {'created' if arguments.confirm else 'nothing was sent'}; {out / 'serving.yaml'}")


if __name__ == "__main__":
    errors.run(main)
