"""Chat with a run's model and the untuned one: as trained (torch), or any of its exports.

In the terminal, or with --page on a local web page. Questions are inserted into the scenario's prompt, as in training; --raw sends
them unchanged. Answers are decoded greedily, as in evaluation.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
import numpy as np
from transformers import AutoTokenizer

from chat_page import Chat, server
from snaketune.config.scenario import Scenario
from snaketune.config.templates import template_fields
from snaketune.config.validation import validated
from snaketune.core import paths
from snaketune.core.errors import UserError, run
from snaketune.core.files import read_json, read_yaml
from snaketune.core.layout import MODEL_FILES, PREFIX_FILE
from snaketune.data.settled_template import render
from snaketune.inference.load import load, prove
from snaketune.reporting.results import UNTUNED

ROOT = Path(__file__).resolve().parents[1]
MODEL = MODEL_FILES[0]


class Speaker:
    """A loaded model with its tokenizer and the conversation so far."""

    def __init__(self, name: str, model: Path, prefix: Path | None, base: Path, threads: int):
        prove(model)
        self.name, self.backend = name, load(model, prefix, threads)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
        ends = read_json(base / "generation_config.json")["eos_token_id"]
        self.ends = set(ends if isinstance(ends, list) else [ends])
        self.context: int = read_json(base / "config.json")["max_position_embeddings"]
        self.messages: list[dict[str, Any]] = []

    def answer(self, question: str, new_tokens: int) -> Iterator[str]:
        """Yield the answer to a question piece by piece, and remember both.

        Raises:
            UserError: the conversation is longer than the model's context.
        """
        self.messages.append({"role": "user", "content": question})
        text = render(self.tokenizer, self.messages, add_generation_prompt=True)
        ids = np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
        most = min(new_tokens, self.context - len(ids))
        if most < 1:
            raise UserError(f"the conversation takes {len(ids)} of the {self.context} tokens that {self.name} can read")
        made, shown, past, row = list[int](), "", None, ids[None]
        while len(made) < most:
            logits, past = self.backend.forward(row, past, 1)
            if (token := int(logits[0, -1].argmax())) in self.ends:
                break
            made.append(token)
            whole = self.tokenizer.decode(made)
            # A character may take several tokens.
            if not whole.endswith("\N{REPLACEMENT CHARACTER}"):
                yield whole[len(shown) :]
                shown = whole
            row = np.array([[token]], dtype=np.int64)
        self.messages.append({"role": "assistant", "content": self.tokenizer.decode(made)})


def model_of(results: Path, cell: paths.Cell, backend: str) -> tuple[Path, Path | None]:
    """Return the model file of a run in one of its forms, and the prefix that it starts from.

    Raises:
        UserError: it wasn't made; lists the forms that were.
    """
    here = results / paths.run_path(*cell)
    prefix = here / "prefix" / PREFIX_FILE
    starts = prefix.is_file()
    weights = results / (paths.BASE.format(model=cell[0]) if starts else paths.weights_path(*cell)) / MODEL
    exports = [results / f"{paths.MODEL.format(model=cell[0])}/onnx"] if cell[2] == UNTUNED else []
    found = {one.name: one / "model.onnx" for place in (*exports, here / "onnx") for one in sorted(place.glob("*/"))}
    forms = {"torch": weights, **found}
    forms = {name: path for name, path in forms.items() if path.is_file()}
    chosen = backend.removeprefix("onnx-")
    if chosen not in forms:
        raise UserError(f"{here}: there is no {backend}; available: {', '.join(forms) or 'none: run snakemake'}")
    if not starts:
        return forms[chosen], None
    # Every export has a copy beside it.
    return forms[chosen], prefix if chosen == "torch" else forms[chosen].with_name(PREFIX_FILE)


def prompt_of(scenario: str) -> str:
    """Return the template that a question is put into: the scenario's, if it has one field."""
    file = next((one for one in (Path(), ROOT) if (one / f"config/scenarios/{scenario}.yaml").is_file()), None)
    if file is None:
        return "{}"
    path = file / f"config/scenarios/{scenario}.yaml"
    template: str = validated(Scenario, read_yaml(path), str(path)).prompt
    fields = template_fields(template)
    return template.replace("{" + next(iter(fields)) + "}", "{}") if len(fields) == 1 else "{}"


def show_page(chat: Chat, title: str, port: int) -> None:
    """Serve the page until Ctrl-C."""
    with server(chat, title, port) as page:
        print(f"http://127.0.0.1:{page.server_port}/ (this machine only; Ctrl-C ends it)", flush=True)
        page.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="results/runs/MODEL/SCENARIO/TECHNIQUE/seed-N")
    parser.add_argument(
        "question",
        nargs="*",
        help="questions to ask, in order; without any, they are read line by line from standard input",
    )
    parser.add_argument(
        "--backend", default="torch", help="torch, or an export such as int4 or genai-int4 (%(default)s)"
    )
    parser.add_argument(
        "--page", action="store_true", help="answer side by side on a local web page instead of in the terminal"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the page (default: any free port)")
    parser.add_argument("--alone", action="store_true", help="without the untuned model")
    parser.add_argument("--raw", action="store_true", help="send questions unchanged, without the scenario's prompt")
    parser.add_argument("--new-tokens", type=int, default=256, help="maximum tokens per answer (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(default: all)")
    # Questions may follow an option.
    arguments = parser.parse_intermixed_args()
    if arguments.page and arguments.question:
        parser.error("questions are typed on the page: give either questions or --page")
    results, cell = paths.cell_of(arguments.run)
    base = results / paths.BASE.format(model=cell[0])
    cells = [cell] if arguments.alone or cell[2] == UNTUNED else [(*cell[:2], UNTUNED, 0), cell]
    speakers = [
        Speaker(
            "untuned" if one[2] == UNTUNED else one[2],
            *model_of(results, one, arguments.backend),
            base,
            arguments.threads,
        )
        for one in cells
    ]
    template = "{}" if arguments.raw else prompt_of(cell[1])
    if arguments.page:
        show_page(
            Chat(speakers, template.format, arguments.new_tokens),
            f"{'/'.join(map(str, cell))}, {arguments.backend}",
            arguments.port,
        )
        return
    if not arguments.question and sys.stdin.isatty():
        print("Type one question per line; an empty line starts a new conversation; Ctrl-D ends.", file=sys.stderr)
    for line in arguments.question or map(str.strip, sys.stdin):
        for speaker in speakers:
            if not line:
                speaker.messages.clear()
                continue
            print(f"{speaker.name}: ", end="", flush=True)
            for piece in speaker.answer(template.format(line), arguments.new_tokens):
                print(piece, end="", flush=True)
            print()


if __name__ == "__main__":
    run(main)
