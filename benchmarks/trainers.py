"""The systems whose training is compared: this project's own loop, and TRL's trainer.

Each trains the same rows from the same weights and the same LoRA. ``turn`` trains an epoch and
``losses`` a few steps on one batch, for comparison.
"""

import contextlib
import ctypes
import io
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
import turns
from turns import KINDS

from snaketune.config.technique import Technique
from snaketune.core import files
from snaketune.data.tokens import Rows
from snaketune.training.adapters import attach
from snaketune.training.base_model import load_base
from snaketune.training.batches import IGNORED, collate, plan_batches
from snaketune.training.checkpoints import Checkpoints
from snaketune.training.engines import accelerator_for, optimizer_for
from snaketune.training.loop import TrainingLoop
from snaketune.training.loss import answer_loss
from snaketune.training.memory import limit_threads
from snaketune.training.schedule import Plan
from snaketune.training.shared_prompts import obstacle

SEED, RATE = 7, 1e-3


def rows_of(kind: str, vocabulary: int, count: int) -> Rows:
    """Draw rows of a kind; the speed of training doesn't depend on which tokens they are."""
    shared, least, most, answered = KINDS[kind]
    draw = np.random.default_rng(SEED)
    start = draw.integers(8, vocabulary, shared)
    own = [draw.integers(8, vocabulary, length) for length in draw.integers(least, most + 1, count)]
    ids = [np.concatenate([start, row]).astype(np.int32) for row in own]
    ends = [max(1, round(len(row) * answered)) for row in own]
    return Rows(ids, [np.arange(len(row)) >= len(row) - end for row, end in zip(ids, ends, strict=True)])


def recipe_of(family: str, technique: str, precision: str, threads: int, batch_rows: int) -> Any:
    """Return the recipe of a technique as the workflow would give it to a job."""
    content = Technique.model_validate(files.read_yaml(turns.ROOT / f"config/techniques/{technique}.yaml"))
    sizes = {"world_size": 1, "threads": threads, "batch_rows": batch_rows, "micro_batch_rows": batch_rows}
    return {**content.recipe(family), "seed": SEED, "compute_precision": precision, "learning_rate": RATE, **sizes}


class Trainer:
    def __init__(self, model: Path, technique: str, precision: str, threads: int, batch_rows: int, count: int):
        limit_threads(threads)
        family = files.read_json(model / "config.json")["model_type"]
        self.recipe = recipe_of(family, technique, precision, threads, batch_rows)
        self.batch_rows = batch_rows
        base = load_base(model, "fp32", precision)
        self.pad = base.config.pad_token_id or 0
        self.vocabulary = base.config.vocab_size
        self.rows = {kind: rows_of(kind, self.vocabulary, count) for kind in KINDS}
        torch.manual_seed(SEED)
        self.model = attach(base, self.recipe["adapter"])
        self.model.train()

    def trained(self, kind: str) -> int:
        return self.rows[kind].tokens(range(len(self.rows[kind])))

    def plan(self, batches: list[list[int]], clip: float) -> Plan:
        return Plan(batches, self.batch_rows, RATE, 0.0, clip, 10**9)

    def trim(self) -> None:
        """Give freed memory back, or all systems together hold the most that each ever needed."""
        ctypes.CDLL(None).malloc_trim(0)


class Ours(Trainer):
    """Drives the project's loop (``training/loop.py``) as train.py does."""

    def __init__(self, model: Path, technique: str, precision: str, threads: int, batch_rows: int, count: int):
        super().__init__(model, technique, precision, threads, batch_rows, count)
        self.accelerator = accelerator_for(self.recipe, sum(p.numel() for p in self.model.parameters()))
        self.shared = not obstacle(self.model, self.recipe.get("share_prompts"))
        self.model, self.optimizer = self.accelerator.prepare(self.model, optimizer_for(self.model, self.recipe))
        self.checkpoints = Checkpoints(self.accelerator, Path(mkdtemp()), "", whole=False)

    def fit(self, kind: str, batches: list[list[int]], clip: float) -> TrainingLoop:
        plan, rows = self.plan(batches, clip), self.rows[kind]
        run = (self.accelerator, self.model, self.optimizer, rows, self.pad, plan, self.checkpoints, "ours")
        fit = TrainingLoop(*run, shared=self.shared)
        with contextlib.redirect_stdout(io.StringIO()):
            fit.run()
        return fit

    def losses(self, kind: str, steps: int) -> list[float]:
        return [entry["loss"] for entry in self.fit(kind, [list(range(self.batch_rows))] * steps, 0.0).log]

    def turn(self, kind: str) -> dict[str, float]:
        rows = self.rows[kind]
        batches, started = plan_batches(rows, self.batch_rows, 1, SEED), time.process_time()
        last = self.fit(kind, batches, self.recipe["max_grad_norm"]).log[-1]
        taken = time.process_time() - started
        rate = self.operations(kind, last["computed_tokens"]) / taken
        # At the same moment, as other work on the machine slows both.
        share = rate / self.peak(max(1, last["computed_tokens"] // len(batches)))
        found = {"tokens": last["tokens"], "computed_tokens": last["computed_tokens"], "cpu_seconds": taken}
        return {**found, "share_of_peak": share}

    def profile(self, kind: str) -> dict[str, Any]:
        """Return operators of a step with their shapes and microseconds, and the sizes by which to tell them apart."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as found:
            tokens = self.fit(kind, [list(range(self.batch_rows))], self.recipe["max_grad_norm"]).log[-1]
        events = found.key_averages(group_by_input_shape=True)
        sizes = {"tokens": tokens["computed_tokens"], "rank": self.recipe["adapter"]["options"]["r"]}
        operators = [(one.key, one.input_shapes, one.self_cpu_time_total) for one in events]
        return {"operators": operators, "sizes": {**sizes, "vocabulary": self.vocabulary}}

    def saved_bytes(self, kind: str) -> int:
        """Count the bytes that a batch's forward pass keeps for the backward pass, without weights."""
        weights = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        found: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        numbers = list(range(self.batch_rows))
        inputs = collate(self.rows[kind], numbers, self.pad, self.accelerator.device, self.shared)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = answer_loss(self.model, *inputs)
        del kept
        return sum(found.values())

    def operations(self, kind: str, computed_tokens: int) -> float:
        """Count the useful operations of an epoch in matrix products with weights.

        2 for each weight and token forward and 2 for the gradient of its input (arXiv 2001.08361);
        2 more for the gradient of a trained weight. The head is needed where an answer's token is predicted.
        """
        linear = {name: m for name, m in self.model.named_modules() if isinstance(m, torch.nn.Linear)}
        head = [name for name in linear if name.rsplit(".", 1)[-1] == "lm_head"]
        of = {True: 0, False: 0}
        for name, module in linear.items():
            if name not in head:
                of[module.weight.requires_grad] += module.weight.numel()
        answers = self.rows[kind].answer_tokens(range(len(self.rows[kind])))
        return computed_tokens * (4 * of[False] + 6 * of[True]) + 4 * answers * linear[head[0]].weight.numel()

    def peak(self, tokens: int, repeats: int = 5) -> float:
        """Measure operations per CPU second of `linear` alone, forward and to its input's gradient, at the base's shapes."""
        shapes: dict[torch.Size, int] = {}
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear) and "lora_" not in name and "lm_head" not in name:
                shapes[module.weight.shape] = shapes.get(module.weight.shape, 0) + 1
        half = self.recipe["compute_precision"] == "bf16"
        total = seconds = 0.0
        for shape, times in shapes.items():
            weight = torch.randn(shape, dtype=torch.bfloat16 if half else torch.float32)
            data = torch.randn(tokens, shape[1], dtype=weight.dtype, requires_grad=True)
            taken = []
            for _ in range(repeats):
                started = time.process_time()
                torch.nn.functional.linear(data, weight).backward(torch.ones(tokens, shape[0], dtype=weight.dtype))
                taken.append(time.process_time() - started)
            seconds += times * min(taken)
            total += times * 4 * tokens * weight.numel()
        return total / seconds


class Trl(Trainer):
    """Drives TRL's SFTTrainer; ``options`` are of its SFTConfig."""

    def __init__(self, model: Path, options: dict[str, Any], threads: int, batch_rows: int, count: int):
        super().__init__(model, "lora", "fp32", threads, batch_rows, count)
        self.options = options
        self.trainer = cache(self._trainer)
        self.checked = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad], lr=RATE, weight_decay=0
        )
        self.context: int = self.model.config.max_position_embeddings

    def _trainer(self, kind: str) -> Any:
        import datasets
        import tokenizers
        import transformers
        from trl import SFTConfig, SFTTrainer

        clock = self.clock = Clock()
        rows = self.rows[kind]
        labels = [np.where(on, ids, IGNORED).tolist() for ids, on in zip(rows.ids, rows.answers, strict=True)]
        data = datasets.Dataset.from_dict({"input_ids": [ids.tolist() for ids in rows.ids], "labels": labels})
        size = {"per_device_train_batch_size": self.batch_rows}
        if self.options.get("packing"):
            # As many tokens a step as the others have, in sequences that the model can hold.
            whole = self.batch_rows * self.trained(kind) // len(rows)
            length = min(self.context, max(whole, *map(len, rows.ids)))
            size = {"per_device_train_batch_size": max(1, round(whole / length)), "max_length": length}
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": self.pad, "<end>": 1}, unk_token="<pad>"))  # noqa: S106
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")  # noqa: S106
        quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
        config = SFTConfig(
            mkdtemp(),
            num_train_epochs=1,
            learning_rate=RATE,
            dataloader_pin_memory=False,
            **quiet,
            **size,
            **self.options,
        )
        trainer = SFTTrainer(self.model, config, train_dataset=data, processing_class=tokenizer)

        class Timed(transformers.TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                clock.started = time.process_time()

            def on_train_end(self, *_: Any, **__: Any) -> None:
                clock.seconds = time.process_time() - clock.started

        trainer.add_callback(Timed())
        trainer.clock = clock
        return trainer

    def losses(self, kind: str, steps: int) -> list[float]:
        trainer, rows = self.trainer(kind), self.rows[kind]
        found, plan = [], self.plan([[]] * steps, 0.0)
        labels = [np.where(on, ids, IGNORED).tolist() for ids, on in zip(rows.ids, rows.answers, strict=True)]
        batch = [{"input_ids": rows.ids[n].tolist(), "labels": labels[n]} for n in range(self.batch_rows)]
        self.model.train()
        for step in range(steps):
            self.checked.param_groups[0]["lr"] = plan.rate(step)
            loss = trainer.compute_loss(self.model, trainer.data_collator(batch))
            loss.backward()
            self.checked.step()
            self.checked.zero_grad()
            found.append(float(loss.detach()))
        return found

    def turn(self, kind: str) -> dict[str, float]:
        trainer = self.trainer(kind)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        return {"tokens": self.trained(kind), "cpu_seconds": trainer.clock.seconds}


class Clock:
    """When an epoch of TRL's began, and the CPU seconds that it took."""

    started = seconds = 0.0
