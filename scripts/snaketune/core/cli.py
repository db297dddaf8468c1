"""Command-line options that job scripts share."""

import argparse
import json


def add_recipe(parser: argparse.ArgumentParser, params: type | None = None) -> None:
    """Add ``--recipe``, the job's parameters as one JSON text; `--help` lists the keys of the TypedDict ``params``.

    Without ``params`` the job reads no key: the object only goes into its manifest.
    """
    keys = ", ".join(params.__annotations__) if params else "nothing that it reads; recorded in its manifest"
    parser.add_argument(
        "--recipe", type=json.loads, required=True, metavar="JSON", help=f"job parameters, an object with: {keys}"
    )
