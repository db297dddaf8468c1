"""Train, merge and save one technique with TRL and peft, as a user's script would, with our rows and recipe.

Hand-tuned: fp32, no checkpointing, rows grouped by length. A quantized base's adapter is merged into the unquantized base.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

from snaketune.data.tokens import read_rows  # first: it turns telemetry off

# isort: split
import numpy as np
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, AutoPeftModelForCausalLM, PeftType
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig


def trained(recipe: dict[str, Any], base: Path, tokens: Path, out: Path) -> None:
    """Train with TRL's SFTTrainer and save the adapter, or all weights, to ``out``."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    rows = read_rows(tokens / "train.safetensors")
    labels = [np.where(on, ids, -100).tolist() for ids, on in zip(rows.ids, rows.answers, strict=True)]
    data = datasets.Dataset.from_dict({"input_ids": [ids.tolist() for ids in rows.ids], "labels": labels})
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    quantized = {"quantization_config": four} if recipe["base_precision"] == "nf4" else {}
    adapter = recipe["adapter"]
    if adapter:
        kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(adapter["type"].upper())]
        adapter = kind(task_type="CAUSAL_LM", **adapter["options"])
    config = SFTConfig(
        str(out / "checkpoints"),
        num_train_epochs=recipe["epochs"],
        max_steps=recipe.get("max_steps", -1),
        per_device_train_batch_size=recipe["batch_rows"],
        learning_rate=recipe["learning_rate"],
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=recipe["warmup_share"],
        weight_decay=recipe["weight_decay"],
        max_grad_norm=recipe["max_grad_norm"],
        seed=recipe["seed"],
        bf16=False,
        gradient_checkpointing=False,
        train_sampling_strategy="group_by_length",
        max_length=None,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **quantized),
        config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=adapter,
    )
    trainer.train()
    trainer.save_model(str(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True, help="what train.py would get")
    for name in ("base", "tokens", "output", "packages"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    recipe, out = arguments.recipe, arguments.output
    # Behind ours, as in the other comparisons.
    sys.path.append(str(arguments.packages))
    if not recipe["adapter"]:
        trained(recipe, arguments.base, arguments.tokens, out)
        return
    trained(recipe, arguments.base, arguments.tokens, out / "adapter")
    whole: Any = AutoPeftModelForCausalLM.from_pretrained(out / "adapter", dtype=torch.float32)
    whole.merge_and_unload().save_pretrained(out)


if __name__ == "__main__":
    main()
