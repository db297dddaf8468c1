"""Measure how fast and how large each form of a model is: one process for each, taking turns."""

import importlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from snaketune.core.errors import UserError
from snaketune.core.precisions import backend_of
from snaketune.inference.load import load


class PythonLoop:
    """Generates greedily with a decoding.Backend."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, backend: Any):
        self.backend = backend

    def generate(self, prompts: np.ndarray, new_tokens: int) -> tuple[float, float]:
        """Return seconds to the first token of each prompt and from there to the last; prompts: (batch, length)."""
        started = self.clock()
        logits, past = self.backend.forward(prompts, None, 1)
        token = logits[:, -1].argmax(-1)
        first = self.clock()
        for _ in range(new_tokens - 1):
            logits, past = self.backend.forward(token[:, None].astype(np.int64), past, 1)
            token = logits[:, -1].argmax(-1)
        return first - started, self.clock() - first

    def logits(self, prompts: np.ndarray) -> np.ndarray:
        """Return the logits of the token after each prompt: (batch, vocabulary)."""
        return np.stack([self.backend.forward(prompt[None], None, 1)[0][0, -1] for prompt in prompts])


class GenaiLoop(PythonLoop):
    """Generates greedily with onnxruntime-genai's own loop."""

    def generate(self, prompts: np.ndarray, new_tokens: int) -> tuple[float, float]:
        import onnxruntime_genai

        length = prompts.shape[1] + new_tokens
        parameters = onnxruntime_genai.GeneratorParams(self.backend.model)
        # All answers must have the same length.
        parameters.set_search_options(batch_size=len(prompts), min_length=length, max_length=length, do_sample=False)
        generator = onnxruntime_genai.Generator(self.backend.model, parameters)
        started = self.clock()
        generator.append_tokens(prompts.astype(np.int32))
        generator.generate_next_token()
        first = self.clock()
        for _ in range(new_tokens - 1):
            generator.generate_next_token()
        return first - started, self.clock() - first


def systems_of(model: Path, exports: list[Path]) -> dict[str, Path]:
    """Return the model file of each system: ``torch-fp32`` and ``torch-bf16`` of weights, and every export."""
    return {"torch-fp32": model, "torch-bf16": model, **{backend_of(path.parent.name): path for path in exports}}


def loaded(system: str, model: Path, threads: int) -> PythonLoop:
    """Load a system of ``systems_of``."""
    backend: Any = load(model, None, threads)
    if system == "torch-bf16":
        backend.model.bfloat16()
    return GenaiLoop(backend) if system.startswith("genai-") else PythonLoop(backend)


def file_bytes(system: str, model: Path) -> int:
    """Return the size of weights and graph on disk; bf16 counts as half of the fp32 weights."""
    if model.suffix == ".safetensors":
        return model.stat().st_size // (2 if system == "torch-bf16" else 1)
    return sum(path.stat().st_size for path in model.parent.glob("model.onnx*"))


# The runtime for a system's first word, imported before the clock starts: that takes seconds for any model.
RUNTIMES = {
    "torch": ["snaketune.training.base_model", "snaketune.inference.torch_backend"],
    "onnx": ["snaketune.inference.onnx_backend"],
    "genai": ["snaketune.inference.genai_backend"],
}


def _serve(connection: Any, load: Callable[[], PythonLoop], runtime: list[str]) -> None:
    """Load a model, then answer each (method, arguments) until the process is stopped."""
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
    except Exception as error:  # the parent process reports it, with the system's name
        connection.send(UserError(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"))


class Server:
    """Runs the model that ``load`` returns in a process of its own."""

    def __init__(self, system: str, load: Callable[[], PythonLoop]):
        self.system = system
        # A fork would share memory, and torch's threads don't survive one.
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
            raise self._died() from None
        if isinstance(answer, UserError):
            raise UserError(f"{self.system}: {answer}")
        return answer

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return the result of a method of `PythonLoop`."""
        try:
            self.connection.send((method, arguments))
        except BrokenPipeError:
            raise self._died() from None
        return self._answer()

    def _died(self) -> UserError:
        return UserError(
            f"{self.system}: its process died, perhaps from lack of memory: see the log, or leave out a precision"
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()


def prompts_of(text: np.ndarray, batch: int, length: int) -> np.ndarray:
    """Cut prompts of one length from different places of a text: (batch, length), int64."""
    starts = np.arange(batch) * length
    return np.take(text, starts[:, None] + np.arange(length), mode="wrap").astype(np.int64)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def in_turns(systems: list[str], rounds: int) -> Iterator[list[str]]:
    """Yield the systems' order in each round; each comes first equally often, so that none gains from its place."""
    for at in islice(cycle(range(len(systems))), rounds):
        yield systems[at:] + systems[:at]


def counted(what: str, systems: list[str], rounds: int) -> Iterator[list[str]]:
    """Yield the order of each round, and print after each how long the others will take."""
    began = time.monotonic()
    for number, order in enumerate(in_turns(systems, rounds), 1):
        yield order
        left = (time.monotonic() - began) / number * (rounds - number)
        print(f"{what}: round {number} of {rounds}, {left:,.0f} s left", flush=True)


Times = dict[tuple[int, int], list[tuple[float, float]]]


def timed(servers: dict[str, Server], text: np.ndarray, context: int, recipe: dict[str, Any]) -> dict[str, Times]:
    """Let the systems take turns; return, by system and (prompt tokens, batch), a pair of `PythonLoop.generate` per round.

    A shape beyond the model's context isn't measured.
    """
    new = recipe["new_tokens"]
    shapes = [shape for shape in product(recipe["prompt_lengths"], recipe["batch_sizes"]) if shape[0] + new <= context]
    found: dict[str, Times] = {name: {shape: [] for shape in shapes} for name in servers}
    for length, batch in shapes:
        prompts = prompts_of(text, batch, length)
        for name in servers:
            # The first call allocates buffers and prepares kernels.
            servers[name].ask("generate", prompts, 2)
        for order in counted(f"{length} prompt tokens, batch {batch}", list(servers), recipe["rounds"]):
            for name in order:
                found[name][length, batch].append(servers[name].ask("generate", prompts, new))
    return found


def measure(servers: dict[str, Server], text: np.ndarray, context: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """Measure time to the first token and decode rate of each system at each shape.

    Returns:
        By system a list of shapes: ``prompt_tokens``, ``batch``, and median, least and most of
        ``first_token_ms`` and ``decode_tokens_per_second`` (of the whole batch).
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
