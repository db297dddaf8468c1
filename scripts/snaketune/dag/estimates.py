"""Estimates of a job's memory in bytes and its time in seconds, before it runs.

Constants marked "measured" were taken on Linux and x86-64 with the locked environment; a test holds the
estimate of each technique's training between 1.0 and 1.5 of its measured peak.
"""

import math
from dataclasses import dataclass
from typing import Any

from snaketune.config.peft_methods import OWN
from snaketune.dag.shape import Shape
from snaketune.training.params import (
    ACTIVATED,
    ATTENDED,
    BUCKET_ELEMENTS,
    HALF,
    LOGITS_AT_ONCE,
    VALIDATION_ROWS,
    VALIDATION_TOKENS,
)

FLOAT = 4
# Measured resident bytes of a training process before its model (`imported_memory_bytes` of
# resources.json), and of what its first step loads in addition.
LIBRARIES = {"torch": 460e6, "deepspeed": 492e6}
FIRST_STEP = {"torch": 45e6, "deepspeed": 100e6}
# Measured: torchrun itself, without its ranks.
LAUNCHER = 230e6
# Measured: what the allocator keeps beyond what autograd saves, as batches come in many lengths.
FRAGMENTATION = 1.5
# NF4 with double quantization (arXiv 2305.14314, section 3): 4 bits, and 8 + 32/256 for each 64 weights.
# LLM.int8 has a scale for each output.
LINEAR_BYTES = {"nf4": 0.5 + (1 + 4 / 256) / 64, "int8": 1}
# Numbers of 32 bits that an optimizer keeps of each trained one; Adafactor's are of rows and columns, of an
# adapter at most this. The 8-bit ones have a scale for each 256, and keep small tensors in 32 bits.
OPTIMIZER_NUMBERS = {"adamw": 2.0, "adamw-8bit": 0.52, "paged-adamw-8bit": 0.52, "adafactor": 0.1}
# Floating-point operations a second: of one core measured in fp32 training, of a GPU assumed. Where it is slower,
# a job reaches its time limit, saves a checkpoint and resumes with a longer one (`resources.minutes_of_attempt`).
CORE_SPEED, GPU_SPEED = 1.5e10, 1e13
# More than the two minutes ahead of its end at which profiles/slurm warns a job, and imports on a slow disk.
START_SECONDS = 600


def targets(shape: Shape, adapter: dict[str, Any], but: tuple[str, ...] = ()) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of the layers of a block that an adapter changes, without some."""
    names = [name for name in adapter["options"].get("target_modules") or [] if name not in but]
    return [shape.linears[name] for name in names if name in shape.linears]


def adapter_parameters(shape: Shape, adapter: dict[str, Any]) -> int:
    """Return how many numbers of an adapter are trained, as its paper counts them (`config/techniques/` names it)."""
    kind, options, found = adapter["type"], adapter["options"], targets(shape, adapter)
    if kind == "prefix":
        return int(options["num_virtual_tokens"] * 2 * shape.keys * shape.layers)
    if kind == "ia3":
        fed = {shape.linears.get(name) for name in options.get("feedforward_modules", [])}
        return shape.layers * sum(pair[0] if pair in fed else pair[1] for pair in found)
    if kind == "vera":
        return shape.layers * sum(options["r"] + outputs for _, outputs in found)
    if kind != "lora":
        return _most_parameters(shape, adapter)
    dora, more = bool(options.get("use_dora")), 0
    whole = dict.fromkeys(("embed_tokens", "lm_head"), shape.vocabulary * shape.hidden)
    for name in options.get("modules_to_save", ()):
        # A layer of each block, or norms: peft takes all whose names end so, at most four of a block.
        layers = shape.layers * math.prod(shape.linears.get(name, (4, shape.hidden)))
        more += whole.get(name, layers + shape.hidden)
    return more + shape.layers * sum(options["r"] * (inputs + outputs) + dora * outputs for inputs, outputs in found)


def _most_parameters(shape: Shape, adapter: dict[str, Any]) -> int:
    """Return a bound for the other methods of peft: two pairs of factors of its rank, or of 32, for each layer that it changes.

    OSF (arXiv 2504.07097) trains half of each layer's singular vectors; P-tuning makes embeddings by a network, at most an LSTM.
    """
    options, hidden = adapter["options"], shape.hidden
    rank, half = max(32, options.get("r") or 0), adapter["type"] == "osf"
    factors = sum(i + o + (i * o if half else 2 * rank * (i + o)) for i, o in targets(shape, adapter))
    rows = options.get("num_virtual_tokens", 0) + len(options.get("token_indices", ()))
    lstm = options.get("encoder_reparameterization_type") == "LSTM"
    network = (48 if lstm else 4) * max(hidden, options.get("encoder_hidden_size") or 0) ** 2
    made = network if adapter["type"] == "p_tuning" else 0
    return int(shape.layers * (factors + 4 * hidden) + (rows + 1) * hidden + made)


def _in_16_bits(recipe: dict[str, Any]) -> bool:
    return bool({recipe["base_precision"], recipe.get("compute_precision")} & set(HALF))


def block_numbers(recipe: dict[str, Any], shape: Shape, tokens: int, longest: int) -> float:
    """Return how many fp32 numbers autograd keeps of one block and ``tokens`` tokens, beside its weights.

    Counted tensor by tensor with autograd's hooks (docs/scale.md). For each token: the input, normed values and output
    of two norms; queries, keys and values, with grouped keys expanded as padding makes attention do, and normed as in
    Qwen3; its output; 4 of the feed-forward layer; a row of the mask. Frozen norms keep no normed values, frozen linear
    layers no input, unless a trained factor reads it. (IA)3 and VeRA keep what they scale, DoRA what isn't free.
    """
    h, i, k, q = shape.hidden, shape.intermediate, shape.keys, shape.queries
    adapter, base = recipe["adapter"], recipe["base_precision"]
    per_token, per_block = 6.0 * h + 6 * q + 2 * k + 4 * i + longest, 0.0
    if adapter:
        kind, options, found = adapter["type"], adapter["options"], targets(shape, adapter)
        outputs, rank = sum(pair[1] for pair in found), options.get("r", 0) * len(found)
        per_token += rank - 2 * h - (0 if kind == "lora" else 2 * h + q + i)
        if kind == "ia3":
            fed = {shape.linears.get(name) for name in options.get("feedforward_modules", [])}
            per_token += sum(pair[0] if pair in fed else pair[1] for pair in found)
            per_block += sum(max(pair) for pair in found)
        elif kind == "vera":
            per_token += outputs
        elif kind == "prefix":
            per_token += options["num_virtual_tokens"] * (1 + 2 * q / longest)
        elif kind not in OWN.values():
            # Embeddings, or what a method makes of the weights of each layer before it multiplies.
            per_token += options.get("num_virtual_tokens", 0) + 2 * sum(map(sum, found))
            per_block += 3 * sum(inputs * outputs for inputs, outputs in found)
        elif options.get("use_dora"):
            free = ACTIVATED + ATTENDED * (base == "fp32" and not _in_16_bits(recipe))
            kept = sum(pair[1] for pair in targets(shape, adapter, free))
            per_token += 2 * outputs if options.get("lora_dropout") else kept
            per_block += 10 * outputs
    if recipe.get("gradient_checkpointing") == "feed-forward":
        per_token -= 2 * i
    if _in_16_bits(recipe):
        # Norms compute on fp32 copies of what they read; nf4's products return fp32 where they are given it.
        per_token = per_token / 2 + h + q + k + (2 * i if base == "nf4" else 0)
        # Autocast's 16-bit copies of the weights.
        per_block += 0 if base in (*LINEAR_BYTES, *HALF) else shape.block / 2
    return tokens * per_token + per_block


def saved_numbers(recipe: dict[str, Any], shape: Shape, tokens: int, longest: int) -> float:
    """Return how many fp32 numbers autograd keeps of a micro-batch of ``tokens`` for its backward pass.

    Logits are there four times at its start. Of a recomputed block its input is kept, and one block whole.
    Trained tables have a second gradient until it is added. DoRA makes a layer's weights anew, with dropout four such matrices.
    """
    h, v, adapter, base = shape.hidden, shape.vocabulary, recipe["adapter"], recipe["base_precision"]
    one, head = block_numbers(recipe, shape, tokens, longest), tokens * 4.0 * h + 4 * min(tokens * v, LOGITS_AT_ONCE)
    head += 0 if adapter else v * h
    head += v * h / 2 if _in_16_bits(recipe) and base not in HALF else 0
    if adapter and adapter["options"].get("use_dora"):
        made = 4 if adapter["options"].get("lora_dropout") else 1
        head += max(made * inputs * outputs for inputs, outputs in targets(shape, adapter))
    recomputed = recipe.get("gradient_checkpointing") is True
    return (one + shape.layers * tokens * h if recomputed else shape.layers * one) + head


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at its peak."""

    libraries: float
    weights: float
    gradients: float
    optimizer: float
    buffers: float
    working: float
    # What of `working` lives at one time, without what the allocator keeps beside it.
    live: float
    # Pages of the fp32 file that the base was read from and isn't kept in.
    mapped: float

    @property
    def states(self) -> float:
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        return self.libraries + self.states + self.buffers + self.working + self.mapped


def factored(shape: Shape) -> int:
    """Return how many numbers Adafactor keeps (arXiv 1804.04235): of each matrix its rows and columns."""
    h, i, k, q = shape.hidden, shape.intermediate, shape.keys, shape.queries
    tables = (shape.vocabulary + h) * (1 if shape.tied else 2)
    return tables + shape.layers * (7 * h + 2 * q + 2 * k + 3 * i + 2 * h) + h


def training_memory(recipe: dict[str, Any], shape: Shape, longest: int) -> Memory:
    """Return the memory of one rank of a training job, whose longest row has ``longest`` tokens.

    States are counted as the ZeRO paper does (arXiv 1910.02054, section 3 and figure 1), with
    weights, gradients and both Adam moments in fp32: stage 1 divides the optimizer's states by the
    ranks, stage 2 gradients too, stage 3 weights too. DeepSpeed has its own fp32 copy of what it
    updates among the optimizer's.
    """
    engine, adapter, ranks = recipe["engine"], recipe["adapter"], recipe["world_size"]
    deepspeed, stage = engine["type"] == "deepspeed", engine["zero_stage"]
    frozen = shape.parameters if adapter else 0
    trained = adapter_parameters(shape, adapter) if adapter else shape.parameters
    shared = [ranks if stage >= needed else 1 for needed in (1, 2, 3)]
    base = recipe["base_precision"]
    if base in LINEAR_BYTES:
        linear = shape.layers * shape.block
        weights = LINEAR_BYTES[base] * linear + FLOAT * (frozen - linear + trained)
    else:
        weights = float(FLOAT * ((frozen / 2 if base in HALF else frozen) + trained))
    if adapter and adapter["type"] == "vera":
        widest = [max(sizes) for sizes in zip(*targets(shape, adapter), strict=True)]
        weights += FLOAT * adapter["options"]["r"] * sum(widest)
    # Measured: ZeRO-3 gathers and reduces through more buckets. DDP's hold all gradients once more.
    bucket = FLOAT * min(BUCKET_ELEMENTS, shape.parameters) * (5 if stage == 3 else 2)
    buffers = bucket if deepspeed else FLOAT * trained * (ranks > 1)
    rows, most = min(recipe["micro_batch_rows"], -(-recipe["batch_rows"] // ranks)), recipe.get("micro_batch_tokens")
    tokens, validated = (
        max(longest, min(count * longest, most or otherwise))
        for count, otherwise in ((rows, rows * longest), (VALIDATION_ROWS, VALIDATION_TOKENS))
    )
    saved = FLOAT * saved_numbers(recipe, shape, tokens, longest)
    logits = 2.5 * min(validated * shape.vocabulary, LOGITS_AT_ONCE)
    validation = 0 if "steps" in recipe else FLOAT * (logits + validated * 4 * shape.intermediate)
    moments = OPTIMIZER_NUMBERS[recipe.get("optimizer", "adamw")]
    if recipe.get("optimizer") == "adafactor":
        moments = factored(shape) / shape.parameters if not adapter else moments
    return Memory(
        LIBRARIES[engine["type"]] + FIRST_STEP[engine["type"]],
        weights / shared[2],
        FLOAT * trained / shared[1],
        FLOAT * trained * (3 if deepspeed else moments) / shared[0],
        buffers,
        max(FRAGMENTATION * saved, saved + validation),
        max(saved, validation),
        0 if base not in (*LINEAR_BYTES, *HALF) or stage == 3 else FLOAT * frozen,
    )


def training_bytes(recipe: dict[str, Any], shape: Shape, longest: int) -> float:
    """Return the bytes of a training job on one node: torchrun and its ranks, each with all weights while it loads."""
    ranks, engine = recipe["world_size"], recipe["engine"]
    of_a_rank = training_memory(recipe, shape, longest)
    loading = of_a_rank.libraries + 2 * FLOAT * shape.parameters if engine["zero_stage"] == 3 else 0
    launched = ranks > 1 or engine["type"] == "deepspeed"
    return ranks * max(of_a_rank.total, loading) + (LAUNCHER if launched else 0)


def training_seconds(parameters: int, tokens: int, cores: int, gpus: int = 0) -> float:
    """Return 6 operations per parameter and token (arXiv 2001.08361, section 2.1), doubled for safety, plus a start."""
    speed = gpus * GPU_SPEED or cores * CORE_SPEED
    return START_SECONDS + 2 * 6 * parameters * tokens / speed
