"""Load the base model of a technique at its precision."""

import logging
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from snaketune.training.params import HALF

disable_progress_bar()
# At int8 it warns of each product, that inputs become fp16.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def dtype_of(precision: str) -> torch.dtype:
    """Return torch's type of a 16-bit format; all else has floats of 32 bits beside it."""
    return dict(zip(HALF, (torch.bfloat16, torch.float16), strict=True)).get(precision, torch.float32)


def load_base(directory: Path, precision: str, compute: str = "fp32") -> PreTrainedModel:
    """Load a local causal LM with weights at ``precision``: fp32, bf16, fp16, int8 or nf4; an export's numbers are fp32.

    int8 is LLM.int8 (arXiv 2208.07339). nf4 is QLoRA's 4-bit NormalFloat with double quantization
    (arXiv 2305.14314); its matrix products run in ``compute``.
    """
    quantization = BitsAndBytesConfig(load_in_8bit=True) if precision == "int8" else None
    if precision == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype_of(compute),
        )
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype_of(precision),
        quantization_config=quantization,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    )
    # On CPUs with AVX512-BF16, bitsandbytes repacks the weights at the first forward pass in eval mode:
    # it then multiplies in bf16, rounds the scales to bf16 for good, and fails below 64 inputs.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return model
