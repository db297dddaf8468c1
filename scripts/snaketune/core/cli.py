"""The command line of a job script."""

import argparse
import json
import sys
from pathlib import Path


def job_parser(
    description: str | None, params: type | str | None, paths: str = "", **described_paths: str
) -> argparse.ArgumentParser:
    """Return a parser with ``--recipe``, the job's parameters as one JSON text or `-`, and with required options for paths.

    Args:
        description: the script's docstring.
        params: a TypedDict whose keys `--help` lists, or the list as a text; None if the job reads no key.
        paths: options without a help text, with spaces between them.
        described_paths: options with their help texts: ``name="help"``.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = ", ".join(params.__annotations__) if isinstance(params, type) else params
    keys = keys or "nothing that it reads; recorded in its manifest"
    parser.add_argument(
        "--recipe",
        type=lambda text: json.loads(sys.stdin.read() if text == "-" else text),
        required=True,
        metavar="JSON",
        help=f"job parameters (- reads them from standard input), an object with: {keys}",
    )
    described = {"--" + name.replace("_", "-"): words for name, words in described_paths.items()}
    for option, words in (dict.fromkeys(paths.split()) | described).items():
        parser.add_argument(option, type=Path, required=True, help=words)
    return parser
