"""Write a scenario's training and validation rows as the chats that a hosted service takes, checked as it would.

The SDKs check nothing: what a service would reject after the upload is told here, before anything is sent.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from snaketune.core import errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.data.raw_rows import Faults, found
from snaketune.platforms.hosted.service import SPLITS


def faults_of(row: dict[str, Any], most_characters: int | None) -> list[str]:
    """What a service would reject in a row of data/{scenario}/: roles, order, empty messages, length."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return ["expected messages: hosted services take chats only"]
    told = []
    expected = "user"
    for number, message in enumerate(messages):
        role, content = (message.get(key) if isinstance(message, dict) else None for key in ("role", "content"))
        if not isinstance(content, str) or not content.strip():
            told.append(f"messages[{number}].content: expected a non-empty string, found {found(content)}")
        if role == "system" and number == 0:
            continue
        if role != expected:
            told.append(f"messages[{number}].role: expected {expected}, found {found(role)}")
        expected = "assistant" if role == "user" else "user"
    if isinstance(messages[-1], dict) and messages[-1].get("role") != "assistant":
        told.append("messages: expected the assistant's answer last")
    length = sum(len(str(message.get("content"))) for message in messages if isinstance(message, dict))
    if most_characters and length > most_characters:
        told.append(f"messages: {length} characters, expected at most {most_characters} (limits.most_row_characters)")
    return told


def converted(path: Path, limits: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a split as {"messages": [{"role", "content"}]}.

    Raises:
        UserError: a row is one that the service would reject; the first ten, each with its line.
    """
    faults = Faults()
    chats = []
    for number, row in enumerate(files.read_jsonl(path), start=1):
        told = faults_of(row, limits["most_row_characters"])
        for one in told:
            faults.add(f"{path}, line {number}", one)
        if not told:
            chats.append({"messages": [{key: one[key] for key in ("role", "content")} for one in row["messages"]]})
    faults.stop()
    return chats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=json.loads, required=True, help='JSON: {"limits": {"least_rows", …}}')
    parser.add_argument("--data-directory", type=Path, required=True, help="results/data/SCENARIO")
    parser.add_argument(
        "--output-directory", type=Path, required=True, help="where train.jsonl and validation.jsonl go"
    )
    arguments = parser.parse_args()
    limits, data = arguments.recipe["limits"], arguments.data_directory

    sources = [data / f"{split}.jsonl" for split in SPLITS]
    manifest.prove(data / "manifest.json", *(path.name for path in sources))
    chats = [converted(path, limits) for path in sources]
    rows = len(chats[0])
    if rows < limits["least_rows"] or (limits["most_rows"] and rows > limits["most_rows"]):
        most = f" and at most {limits['most_rows']}" if limits["most_rows"] else ""
        raise UserError(
            f"{sources[0]}: {rows} rows, but the service takes at least {limits['least_rows']}{most}: change `rows` of the scenario, or `limits` of the technique if the service's are others"
        )
    with files.written_together(arguments.output_directory) as aside:
        for path, found_rows in zip(sources, chats, strict=True):
            files.write_jsonl(aside / path.name, found_rows)
            size = (aside / path.name).stat().st_size
            if size > limits["most_bytes"]:
                raise UserError(
                    f"{path}: {size:,} bytes as the service takes them, but at most {limits['most_bytes']:,} (limits.most_bytes): fewer `rows` in the scenario"
                )
    out = [arguments.output_directory / path.name for path in sources]
    manifest.record(arguments.output_directory, arguments.recipe, sources, out)
    print(", ".join(f"{path.name}: {len(one)} rows" for path, one in zip(out, chats, strict=True)))


if __name__ == "__main__":
    errors.run(main)
