"""Command-line options that job scripts share."""

import argparse
import json


def add_recipe(parser: argparse.ArgumentParser, params: type) -> None:
    """Add ``--recipe``, the job's parameters as one JSON text; `--help` lists the keys of the TypedDict ``params``."""
    keys = ", ".join(params.__annotations__)
    parser.add_argument(
        "--recipe", type=json.loads, required=True, metavar="JSON", help=f"job parameters, an object with: {keys}"
    )
