"""Record the hash of every result in one manifest, and the resolved matrix in params.yaml."""

import yaml

from snaketune.core import cli, contract, errors, files, manifest


def main() -> None:
    keys = "parameters (the resolved matrix), and what decides which results there are"
    arguments = cli.job_parser(__doc__, keys, "--results").parse_args()
    recipe, results = arguments.recipe, arguments.results

    parameters = results / "params.yaml"
    files.write_text(parameters, yaml.safe_dump(recipe.pop("parameters"), allow_unicode=True))
    found = [results / name for name in contract.recorded(recipe)]
    manifests = [path for path in found if path.name == "manifest.json"]
    alone = [parameters, *(path for path in found if path.name != "manifest.json")]
    manifest.record(results, recipe, manifests, alone)
    print(f"{len(alone)} files, {len(manifests)} manifests")


if __name__ == "__main__":
    errors.run(main)
