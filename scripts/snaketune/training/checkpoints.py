"""What a training run keeps in ``work``, so that a killed or preempted one goes on."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType

from snaketune.core.files import sha256, write_json

NOTICES = (signal.SIGTERM, signal.SIGUSR1)


def checkpoint_key(recipe: dict[str, Any], inputs: list[Path]) -> str:
    """What a checkpoint belongs to: a recipe and the content of the inputs, by their manifests."""
    return json.dumps([recipe, *(sha256(path) for path in inputs)], sort_keys=True)


def notice() -> Callable[[], bool]:
    """Whether this process was asked to end soon, from now on: a scheduler sends SIGTERM or SIGUSR1 ahead of SIGKILL."""
    received: list[int] = []
    for number in NOTICES:
        signal.signal(number, lambda number, frame: received.append(number))
    return lambda: bool(received)


class Checkpoints:
    """Of one run's model, optimizer and random states: the last one in ``work``, written by all ranks."""

    def __init__(self, accelerator: Accelerator, work: Path, key: str, strict: bool):
        self.accelerator, self.work, self.key, self.strict = accelerator, work, key, strict

    def last(self) -> Path | None:
        found = sorted(self.work.glob("checkpoint-*/state.json"), key=lambda path: int(path.parent.name.split("-")[1]))
        return found[-1].parent if found else None

    def save(self, step: int, progress: dict[str, Any], peak: int) -> None:
        """Replace the checkpoint by one after ``step``, with the ``progress`` and each rank's peak of memory."""
        path, aside = self.work / f"checkpoint-{step:07d}", self.work / f"part-{step:07d}"
        self.accelerator.save_state(str(aside), safe_serialization=True)
        peaks = self.accelerator.gather(torch.tensor([peak], device=self.accelerator.device)).tolist()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_json(aside / "state.json", {"key": self.key, "step": step, "peaks": peaks, **progress})
            shutil.rmtree(path, ignore_errors=True)
            aside.replace(path)
            for old in self.work.glob("checkpoint-*"):
                if old != path:
                    shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def load(self) -> tuple[Path, dict[str, Any]] | None:
        """Set model, optimizer and random states as they were; where it lay, and what was saved beside them.

        None where there is no checkpoint of this very recipe.
        """
        path = self.last()
        if path is None:
            return None
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        if state["key"] != self.key:
            return None
        # A quantized base saves its quantization beside the weights, which loading doesn't know
        # as keys; it was just read from its own file, and only the adapter differs.
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        options = {} if self.strict else {"load_module_strict" if deepspeed else "strict": False}
        self.accelerator.load_state(str(path), **options)
        return path, state
