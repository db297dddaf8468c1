"""How fast and how large each form of a model is: one process for each, all in turn."""

import importlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from snaketune.core.errors import UserError
from snaketune.inference.load import load


class Looped:
    """Greedy generation by a scoring.Backend."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, backend: Any):
        self.backend = backend

    def generate(self, prompts: np.ndarray, new_tokens: int) -> tuple[float, float]:
        """Seconds to the first token of each prompt, and from there to the last: prompts (batch, length)."""
        started = self.clock()
        logits, past = self.backend.forward(prompts, None, 1)
        token = logits[:, -1].argmax(-1)
        first = self.clock()
        for _ in range(new_tokens - 1):
            logits, past = self.backend.forward(token[:, None].astype(np.int64), past, 1)
            token = logits[:, -1].argmax(-1)
        return first - started, self.clock() - first

    def logits(self, prompts: np.ndarray) -> np.ndarray:
        """Of the token after each prompt: (batch, vocabulary)."""
        return np.stack([self.backend.forward(prompt[None], None, 1)[0][0, -1] for prompt in prompts])


class Native(Looped):
    """Greedy generation by onnxruntime-genai's own loop."""

    def generate(self, prompts: np.ndarray, new_tokens: int) -> tuple[float, float]:
        """As `Looped.generate`."""
        import onnxruntime_genai

        length = prompts.shape[1] + new_tokens
        parameters = onnxruntime_genai.GeneratorParams(self.backend.model)
        # No answer may end before the others do.
        parameters.set_search_options(batch_size=len(prompts), min_length=length, max_length=length, do_sample=False)
        generator = onnxruntime_genai.Generator(self.backend.model, parameters)
        started = self.clock()
        generator.append_tokens(prompts.astype(np.int32))
        generator.generate_next_token()
        first = self.clock()
        for _ in range(new_tokens - 1):
            generator.generate_next_token()
        return first - started, self.clock() - first


def loaded(system: str, run: Path, threads: int) -> Looped:
    """What generates: ``torch-fp32`` or ``torch-bf16`` of merged/, else a precision of onnx/."""
    if system.startswith("torch-"):
        backend: Any = load(run / "merged/model.safetensors", None, threads)
        if system == "torch-bf16":
            backend.model.bfloat16()
        return Looped(backend)
    backend = load(run / "onnx" / system.removeprefix("onnx-") / "model.onnx", None, threads)
    return Native(backend) if system.startswith("genai-") else Looped(backend)


def file_bytes(run: Path, system: str) -> int:
    """Size of the weights and the graph on disk; bf16 would take half of merged/'s fp32."""
    if system.startswith("torch-"):
        return (run / "merged/model.safetensors").stat().st_size // (2 if system == "torch-bf16" else 1)
    return sum(path.stat().st_size for path in (run / "onnx" / system.removeprefix("onnx-")).glob("model.onnx*"))


# What a system's first word runs on: imported before the clock starts, as it takes seconds for any model.
RUNTIMES = {
    "torch": ["snaketune.training.base_model", "snaketune.inference.torch_backend"],
    "onnx": ["snaketune.inference.onnx_backend"],
    "genai": ["snaketune.inference.genai_backend"],
}


def _serve(connection: Any, load: Callable[[], Looped], runtime: list[str]) -> None:
    """Load a model, then answer each (method, arguments) with what it returns, until it is stopped."""
    try:
        for module in runtime:
            importlib.import_module(module)
        before = psutil.Process().memory_info().rss
        started = time.perf_counter()
        model = load()
        seconds = time.perf_counter() - started
        connection.send({"load_seconds": seconds, "memory_bytes": psutil.Process().memory_info().rss - before})
        while True:
            method, arguments = connection.recv()
            connection.send(getattr(model, method)(*arguments))
    except Exception as error:  # the other side tells it, with the system's name
        connection.send(UserError(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"))


class Server:
    """A form of a model, which ``load`` returns, in a process of its own."""

    def __init__(self, system: str, load: Callable[[], Looped]):
        self.system = system
        # A fork would share memory, and torch's threads don't outlive one.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, load, RUNTIMES.get(system.partition("-")[0], [])), daemon=True
        )
        self.process.start()
        theirs.close()
        self.loaded = self._answer()

    def _answer(self) -> Any:
        try:
            answer = self.connection.recv()
        except EOFError:
            raise UserError(f"{self.system}: its process died; is memory short?") from None
        if isinstance(answer, UserError):
            raise UserError(f"{self.system}: {answer}")
        return answer

    def generate(self, prompts: np.ndarray, new_tokens: int) -> tuple[float, float]:
        self.connection.send(("generate", (prompts, new_tokens)))
        return self._answer()

    def logits(self, prompts: np.ndarray) -> np.ndarray:
        self.connection.send(("logits", (prompts,)))
        return self._answer()

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()


def prompts_of(text: np.ndarray, batch: int, length: int) -> np.ndarray:
    """Prompts of one length from a stretch of tokens, each from elsewhere: (batch, length), int64."""
    starts = np.arange(batch) * length
    return np.take(text, starts[:, None] + np.arange(length), mode="wrap").astype(np.int64)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def in_turns(systems: list[str], rounds: int) -> Iterator[list[str]]:
    """The systems' order in each round: each begins as often as another, so that none profits from its place."""
    for number in range(rounds):
        at = number % len(systems)
        yield systems[at:] + systems[:at]


Times = dict[tuple[int, int], list[tuple[float, float]]]


def timed(servers: dict[str, Server], text: np.ndarray, context: int, recipe: dict[str, Any]) -> dict[str, Times]:
    """What `Looped.generate` returns of each system, by turns: of each (prompt tokens, batch), a pair a round.

    A shape beyond the model's context isn't measured.
    """
    new = recipe["new_tokens"]
    shapes = [shape for shape in product(recipe["prompt_lengths"], recipe["batch_sizes"]) if shape[0] + new <= context]
    found: dict[str, Times] = {name: {shape: [] for shape in shapes} for name in servers}
    for length, batch in shapes:
        prompts = prompts_of(text, batch, length)
        for name in servers:
            # Buffers and kernels are made at the first call.
            servers[name].generate(prompts, 2)
        for order in in_turns(list(servers), recipe["rounds"]):
            for name in order:
                found[name][length, batch].append(servers[name].generate(prompts, new))
        print(f"{length} prompt tokens, batch {batch}: {recipe['rounds']} rounds of {len(servers)} systems")
    return found


def measure(servers: dict[str, Server], text: np.ndarray, context: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """Time to the first token and decode rate of each system at each shape, by turns.

    Returns:
        Of each system a list of shapes: ``prompt_tokens``, ``batch``, and of ``first_token_ms``
        and ``decode_tokens_per_second`` (of the whole batch) the median, least and most.
    """
    return {
        name: [
            {
                "prompt_tokens": length,
                "batch": batch,
                "first_token_ms": spread([1000 * first for first, _ in times]),
                "decode_tokens_per_second": spread([batch * (recipe["new_tokens"] - 1) / rest for _, rest in times]),
            }
            for (length, batch), times in mine.items()
        ]
        for name, mine in timed(servers, text, context, recipe).items()
    }
