"""Write a scenario's training and validation rows as chats for a hosted service, validated as the service does.

The SDKs check nothing: what a service would reject after the upload is reported here, before anything is sent.
"""

from pathlib import Path
from typing import Any

from snaketune.core import cli, errors, files, manifest
from snaketune.core.errors import UserError
from snaketune.data.formats import Messages, beyond_texts, conversation
from snaketune.data.raw_rows import Cell, Fault, Faults
from snaketune.platforms.hosted.service import SPLITS


def chat_of(row: dict[str, Any], most_characters: int | None) -> Messages:
    """Return a row's messages with nothing but role and content, and OpenAI's `weight` of an answer not to learn.

    Raises:
        Fault: the service would reject them.
    """
    messages = conversation(Cell(row.get("messages"), "messages"))
    if more := beyond_texts(row):
        raise Fault("messages", f"services are sent texts only, found {more}; leave such rows out")
    length = sum(len(message["content"]) for message in messages)
    if most_characters and length > most_characters:
        raise Fault("messages", f"{length} characters, expected at most {most_characters} (limits.most_row_characters)")
    return messages


def convert(path: Path, limits: dict[str, Any]) -> list[dict[str, Messages]]:
    """Return the rows of a split as {"messages": [{"role", "content"}]}.

    Raises:
        UserError: the service would reject rows; the message names the first ten lines.
    """
    faults = Faults()
    chats = []
    for number, row in enumerate(files.read_jsonl(path), start=1):
        try:
            chats.append({"messages": chat_of(row, limits["most_row_characters"])})
        except Fault as fault:
            faults.add(f"{path}, line {number}", str(fault))
    faults.stop()
    return chats


def main() -> None:
    arguments = cli.job_parser(
        __doc__, "limits", "--data-directory", output_directory="receives train.jsonl and validation.jsonl"
    ).parse_args()
    limits, data = arguments.recipe["limits"], arguments.data_directory

    sources = [data / f"{split}.jsonl" for split in SPLITS]
    manifest.prove(data / "manifest.json", *(path.name for path in sources))
    chats = [convert(path, limits) for path in sources]
    rows = len(chats[0])
    if rows < limits["least_rows"] or (limits["most_rows"] and rows > limits["most_rows"]):
        most = f" and at most {limits['most_rows']}" if limits["most_rows"] else ""
        raise UserError(
            f"{sources[0]}: {rows} rows, but the service takes at least {limits['least_rows']}{most}: change `rows` of the scenario, or `limits` of the technique if the service has others"
        )
    with files.written_together(arguments.output_directory) as aside:
        for path, found_rows in zip(sources, chats, strict=True):
            files.write_jsonl(aside / path.name, found_rows)
            size = (aside / path.name).stat().st_size
            if size > limits["most_bytes"]:
                raise UserError(
                    f"{path}: {size:,} bytes in the service's format, but at most {limits['most_bytes']:,} are allowed (limits.most_bytes): use fewer `rows` in the scenario"
                )
    out = [arguments.output_directory / path.name for path in sources]
    manifest.record(arguments.output_directory, arguments.recipe, sources, out)
    print(", ".join(f"{path.name}: {len(one)} rows" for path, one in zip(out, chats, strict=True)))


if __name__ == "__main__":
    errors.run(main)
