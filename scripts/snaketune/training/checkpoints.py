"""Checkpoints from which a killed or preempted training job resumes."""

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType

from snaketune.core.files import sha256, usual_mode, write_json

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def checkpoint_key(recipe: Mapping[str, Any], inputs: list[Path]) -> str:
    """Return the identity of a job: its parameters and the content of its inputs, by their manifests.

    How many rows are in memory at once is left out, so that a run that needed too much memory goes on with fewer.
    """
    recipe = {key: value for key, value in recipe.items() if not key.startswith("micro_batch_")}
    return json.dumps([recipe, *(sha256(path) for path in inputs)], sort_keys=True)


def stop_notice() -> Callable[[], bool]:
    """Catch SIGTERM and SIGUSR1, which a scheduler sends ahead of SIGKILL; the result says whether one has come."""
    received: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: received.append(number))
    return lambda: bool(received)


def leave_out_frozen(models: list[torch.nn.Module], weights: list[dict[str, Any]], directory: str) -> None:
    """Reduce each model's state dict, in place, to what is trained: accelerate calls this before it saves ``weights``."""
    for model, state in zip(models, weights, strict=False):  # DeepSpeed saves its own way, and passes no weights
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained <= state.keys()
        for name in state.keys() - trained:
            del state[name]


class Checkpoints:
    """The last checkpoint of a run in ``work``: weights, optimizer and random states, written by all ranks.

    Unless it is ``whole``, it holds trained weights only: the job that resumes has loaded the frozen base from
    its own file by then, and PiSSA has taken the same factors out of it. DeepSpeed's holds the base nonetheless.
    """

    def __init__(self, accelerator: Accelerator, work: Path, key: str, whole: bool = True):
        self.accelerator, self.work, self.key, self.whole = accelerator, work, key, whole
        if not whole:
            accelerator.register_save_state_pre_hook(leave_out_frozen)

    def last(self) -> Path | None:
        found = sorted(self.work.glob("checkpoint-*/state.json"), key=lambda path: int(path.parent.name.split("-")[1]))
        return found[-1].parent if found else None

    def at(self, step: int) -> Path:
        return self.work / f"checkpoint-{step:07d}"

    def save(self, step: int, progress: dict[str, Any], peak: int, best: int = 0) -> None:
        """Replace all checkpoints but the ``best`` by one after ``step``.

        It holds ``progress`` and each rank's peak memory in bytes.
        """
        path, aside = self.at(step), self.work / f"part-{step:07d}"
        self.accelerator.save_state(str(aside), safe_serialization=True)
        peaks = self.accelerator.gather(torch.tensor([peak], device=self.accelerator.device)).tolist()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            for file in aside.glob("*.safetensors"):
                file.chmod(usual_mode(aside / "state.json"))
            write_json(aside / "state.json", {"key": self.key, "step": step, "peaks": peaks, **progress})
            shutil.rmtree(path, ignore_errors=True)
            aside.replace(path)
            for old in self.work.glob("checkpoint-*"):
                if old not in (path, self.at(best)):
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
        self.restore(path)
        return path, state

    def restore(self, path: Path) -> None:
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        options = {} if self.whole else {"load_module_strict" if deepspeed else "strict": False}
        self.accelerator.load_state(str(path), **options)
