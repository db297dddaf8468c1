"""Package one run's genai model for users: the model, a chat program and a model card.

The folder also has exact requirements, and SHA256SUMS for `sha256sum -c`. Files are copied, not linked,
so that editing the package cannot change the run that was verified.
"""

import shutil
from pathlib import Path

from snaketune.core import cli, errors, files, layout, manifest, paths
from snaketune.core.locks import pins
from snaketune.core.precisions import backend_of
from snaketune.reporting import model_card
from snaketune.reporting.numbers import mib
from snaketune.reporting.params import PackageParams
from snaketune.reporting.results import UNTUNED
from snaketune.reporting.templates import render

# The package needs only the runtime and the library that it computes with.
REQUIRED = ("onnxruntime-genai", "onnxruntime")


def inputs_of(results: Path, recipe: PackageParams) -> dict[str, Path]:
    """Return the result files that the package is made from, by role.

    Raises:
        UserError: a file is missing, or not the one that its manifest describes.
    """
    run = results / paths.run_path(*recipe["cell"])
    # A genai precision is never calibrated.
    export = results / paths.export_path(*recipe["cell"], precision=recipe["precision"], calibrated=())
    found = {
        "export": export / "manifest.json",
        "weights": results / paths.weights_path(*recipe["cell"]) / "manifest.json",
        "data": results / paths.DATA.format(scenario=recipe["cell"][1]) / "manifest.json",
        "parity": run / "parity.json",
        "evaluation": run / f"evaluation/{backend_of(recipe['precision'])}.json",
        "summary": results / "summary.csv",
        "comparisons": results / "comparisons.json",
    }
    if recipe["cell"][2] != UNTUNED:
        found |= {name: run / f"{name}.json" for name in ("manifest", "provenance", "resources")}
    if missing := [str(path) for path in found.values() if not path.is_file()]:
        raise errors.UserError(f"{run}: can't be packaged without {', '.join(missing)}: run `snakemake package`")
    manifest.prove(found["export"], *layout.GENAI_FILES)
    manifest.prove(found["weights"], "generation_config.json")
    manifest.prove(found["data"], "card.json")
    return found


def main() -> None:
    arguments = cli.job_parser(
        __doc__,
        PackageParams,
        "--results --output-directory",
        template="template of the model card",
        program="chat program, shipped as run.py",
        lock="lock file of the environment that evaluated the model",
    ).parse_args()
    recipe, out = arguments.recipe, arguments.output_directory

    inputs = inputs_of(arguments.results, recipe)
    content = model_card.content(inputs, recipe)
    export = inputs["export"].parent
    sources = [*(export / name for name in layout.GENAI_FILES), inputs["weights"].parent / "generation_config.json"]
    files.need_space(out, sum(path.stat().st_size for path in sources), "the package")
    with files.written_together(out) as aside:
        for path in [*sources, arguments.program]:
            shutil.copyfile(path, aside / path.name)
        content["requirements"] = pins(arguments.lock, REQUIRED)
        (aside / "requirements.txt").write_text("".join(f"{line}\n" for line in content["requirements"]))
        content["files"] = [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)}
            for path in sorted(aside.iterdir())
        ]
        card = render(arguments.template, False, content)
        (aside / "README.md").write_text(card, encoding="utf-8")
        sums = "".join(f"{files.sha256(path)}  {path.name}\n" for path in sorted(aside.iterdir()))
        (aside / "SHA256SUMS").write_text(sums, encoding="utf-8")
        manifest.record(aside, recipe, list(inputs.values()), list(aside.iterdir()))
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {mib(size)} MiB; {content['verdict'] or 'the untuned model itself'}")


if __name__ == "__main__":
    errors.run(main)
