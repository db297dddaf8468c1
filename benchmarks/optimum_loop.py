"""Run an exported model with optimum, whose environment has an older transformers than ours."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class OptimumLoop:
    """Generates greedily with optimum's `generate`, one prompt at a time."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, directory: Path, threads: int):
        import onnxruntime
        import torch
        from optimum.onnxruntime import ORTModelForCausalLM

        torch.set_num_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.torch = torch
        self.model: Any = ORTModelForCausalLM.from_pretrained(
            directory, session_options=options, use_io_binding=False, local_files_only=True
        )

    def generate(self, prompts: np.ndarray, new_tokens: int) -> tuple[float, float]:
        """Return seconds to the first token and from there to the last; prompts: (1, length)."""
        times: list[float] = []

        class Clock:
            """Of transformers' streamers: it gets the prompt, then each new token."""

            put = staticmethod(lambda tokens: times.append(self.clock()))
            end = staticmethod(lambda: None)

        ids = self.torch.from_numpy(prompts)
        started = self.clock()
        length = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
        self.model.generate(ids, attention_mask=self.torch.ones_like(ids), do_sample=False, streamer=Clock(), **length)
        return times[1] - started, times[-1] - times[1]

    def logits(self, prompts: np.ndarray) -> np.ndarray:
        """Return the logits of the token after each prompt: (batch, vocabulary)."""
        rows = map(self.torch.from_numpy, prompts[:, None])
        return np.concatenate(
            [np.asarray(self.model(row, attention_mask=self.torch.ones_like(row)).logits)[:, -1] for row in rows]
        )


def loaded(directory: Path, packages: Path, threads: int) -> Any:
    """Load the export of a directory; ``packages`` are those of the environment that has optimum.

    For a process of its own that has imported neither torch nor transformers yet.
    """
    sys.path.insert(0, str(packages))
    return OptimumLoop(directory, threads)
