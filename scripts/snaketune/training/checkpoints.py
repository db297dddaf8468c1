"""Checkpoints from which a killed or preempted training job resumes."""

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType

from snaketune.core.files import sha256, write_json

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def checkpoint_key(recipe: Mapping[str, Any], inputs: list[Path]) -> str:
    """Return the identity of a job: its parameters and the content of its inputs, by their manifests."""
    return json.dumps([recipe, *(sha256(path) for path in inputs)], sort_keys=True)


def stop_notice() -> Callable[[], bool]:
    """Catch SIGTERM and SIGUSR1, which a scheduler sends ahead of SIGKILL; the result says whether one has come."""
    received: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: received.append(number))
    return lambda: bool(received)


class Checkpoints:
    """The last checkpoint of a run in ``work``: model, optimizer and random states, written by all ranks.

    ``strict`` is false for a quantized base: its checkpoint holds quantization states that aren't module keys.
    """

    def __init__(self, accelerator: Accelerator, work: Path, key: str, strict: bool = True):
        self.accelerator, self.work, self.key, self.strict = accelerator, work, key, strict

    def last(self) -> Path | None:
        found = sorted(self.work.glob("checkpoint-*/state.json"), key=lambda path: int(path.parent.name.split("-")[1]))
        return found[-1].parent if found else None

    def save(self, step: int, progress: dict[str, Any], peak: int) -> None:
        """Replace the checkpoint by one after ``step``, with ``progress`` and each rank's peak memory in bytes."""
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
        """Restore model, optimizer and random states; return the checkpoint's path and its state.json.

        None if there is no checkpoint of this job.
        """
        path = self.last()
        if path is None:
            return None
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        if state["key"] != self.key:
            return None
        # The quantized base itself was just loaded from its own file; only the adapter is restored.
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        options = {} if self.strict else {"load_module_strict" if deepspeed else "strict": False}
        self.accelerator.load_state(str(path), **options)
        return path, state
