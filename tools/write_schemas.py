"""Write the JSON Schemas of config/ from the typed models, for editors to check and complete, and docs/reference.md for readers."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import reference_page
from snaketune.core import files
from snaketune.platforms.registry import SCHEMAS

OVERLAY = "experiment-overlay"
KINDS = (*SCHEMAS, OVERLAY)
REFERENCE = Path("docs/reference.md")


def schema_text(kind: str) -> str:
    """The JSON Schema of a kind of file, as it is kept in config/schemas/.

    An overlay is a --configfile: an experiment of which only what differs is given.
    """
    schema = SCHEMAS["experiment" if kind == OVERLAY else kind].model_json_schema()
    if kind == OVERLAY:
        del schema["required"]
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def reference_text() -> str:
    """Return the page of every key, as it is kept in docs/."""
    return reference_page.page({kind: json.loads(schema_text(kind)) for kind in SCHEMAS})


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for kind in KINDS:
        path = Path("config/schemas") / f"{kind}.schema.json"
        files.write_text(path, schema_text(kind))
        print(path)
    files.write_text(REFERENCE, reference_text())
    print(REFERENCE)


if __name__ == "__main__":
    main()
