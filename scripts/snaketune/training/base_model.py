"""Load the base model of a technique at its precision."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()


def load_base(directory: Path, precision: str, compute: str = "fp32") -> PreTrainedModel:
    """Load a local causal LM with weights at ``precision``: fp32 or nf4.

    nf4 is QLoRA's 4-bit NormalFloat with double quantization (arXiv 2305.14314); its matrix
    products run in ``compute``, fp32 or bf16.
    """
    quantization = None
    if precision == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if compute == "bf16" else torch.float32,
        )
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
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
