"""Write the JSON Schemas of config/ from the typed models, for editors to check and complete."""

import argparse
import json
from pathlib import Path

from snaketune import files
from snaketune.config import SCHEMAS


def schema_text(kind: str) -> str:
    """The JSON Schema of a kind of file, as it is kept in config/schemas/."""
    return json.dumps(SCHEMAS[kind].model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for kind in SCHEMAS:
        path = Path("config/schemas") / f"{kind}.schema.json"
        files.write_text(path, schema_text(kind))
        print(path)


if __name__ == "__main__":
    main()
