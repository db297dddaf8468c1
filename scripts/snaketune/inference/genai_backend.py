"""Run a model that onnxruntime-genai built with its own runtime."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

from snaketune.core.errors import UserError


@dataclass(frozen=True)
class Past:
    """One generator per row, which holds its cache, and how many tokens each had read."""

    generators: list[Any]
    counts: list[int]


class GenaiBackend:
    """Implements decoding.Backend with one generator per row.

    The runtime would read padding as text, can continue a batch only by generating, and rewinds
    only a single row.
    """

    # What was read after a past is gone once it was rewound.
    shares_within: float = 0
    pads = True

    def __init__(self, model: Path, threads: int, **session: Any):
        """Load ``model`` with the genai_config.json and the tokenizer in its directory.

        Args:
            session: further options of its ONNX Runtime session, as genai_config.json has them.

        Raises:
            UserError: the runtime can't: a file is missing or damaged, or the configuration asks for
                an execution provider that isn't there.
        """
        self.directory = model.parent
        onnxruntime_genai.disable_telemetry_events()
        options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1, **session}
        try:
            config = onnxruntime_genai.Config(str(model.parent))
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            self.model = onnxruntime_genai.Model(config)
            self.tokenizer = onnxruntime_genai.Tokenizer(self.model)
        except RuntimeError as error:
            raise UserError(f"{model.parent}: onnxruntime-genai can't load it ({error})") from error
        self.context = json.loads((model.parent / "genai_config.json").read_text())["model"]["context_length"]

    def encode(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> list[int]:
        """Return the tokens of a conversation and of its answer's start, by the package's own tokenizer and template."""
        try:
            options = {"tools": json.dumps(tools)} if tools else {}
            text = self.tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True, **options)
        except RuntimeError as error:
            raise UserError(
                f"{self.directory / 'tokenizer_config.json'}: onnxruntime-genai can't apply its `chat_template` ({error}): build the package again"
            ) from error
        return self.tokenizer.encode(text).tolist()

    def _generator(self) -> Any:
        parameters = onnxruntime_genai.GeneratorParams(self.model)
        # A shared buffer would be as long as the context from the start: gigabytes a row for a large one.
        parameters.set_search_options(max_length=self.context, past_present_share_buffer=False)
        return onnxruntime_genai.Generator(self.model, parameters)

    def complete(self, prompt: np.ndarray, new_tokens: int) -> list[int]:
        """Return the token ids that the runtime's own loop writes after a prompt, as a program would: at most ``new_tokens``.

        The package's genai_config.json decides where it ends; the last token is then an end token.
        """
        generator, made = self._generator(), list[int]()
        generator.append_tokens(prompt.astype(np.int32))
        while not generator.is_done() and len(made) < new_tokens:
            generator.generate_next_token()
            made.append(int(generator.get_next_tokens()[0]))
        return made

    def _logits(self, generator: Any, ids: np.ndarray, keep: int) -> np.ndarray:
        if (length := generator.token_count() + len(ids)) > self.context:
            raise UserError(
                f"a row and what is generated after it take {length} tokens, but the model's context is {self.context}: lower `max_tokens` of the scenario, so that `max_new_tokens` and `speed_tokens` fit too"
            )
        generator.append_tokens(ids.astype(np.int32))
        return generator.get_output("logits")[0, -keep:]

    def forward(self, ids: np.ndarray, past: Any, keep: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        past = past or Past([self._generator() for _ in ids], [0] * len(ids))
        if [generator.token_count() for generator in past.generators] != past.counts:
            raise ValueError("this past was used before: its generators have moved on")
        keep, rows = min(keep, ids.shape[1]), []
        for number, generator in enumerate(past.generators):
            kept = ids[number] if mask is None else ids[number][mask[number, -ids.shape[1] :] == 1]
            logits = self._logits(generator, kept, keep)
            # NaN marks padding, which must never be read.
            rows.append(np.pad(logits, ((keep - len(logits), 0), (0, 0)), constant_values=np.nan))
        return np.stack(rows), Past(past.generators, [generator.token_count() for generator in past.generators])

    def branch(self, ids: np.ndarray, past: Any, mask: np.ndarray | None = None) -> np.ndarray:
        rows = []
        for number, row in enumerate(ids):
            at = number * len(past.generators) // len(ids)
            # A copy: the next call overwrites it.
            rows.append(self._logits(past.generators[at], row, len(row)).copy())
            past.generators[at].rewind_to(past.counts[at])
        return np.stack(rows)

    def repeat(self, past: Any, rows: int) -> Any:
        raise NotImplementedError("a generator can't be copied")
