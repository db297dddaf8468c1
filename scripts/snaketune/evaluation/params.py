"""Parameters of the evaluation jobs, as their ``--recipe`` holds them."""

from typing import TypedDict


class EvaluationParams(TypedDict):
    """Parameters of evaluate.py."""

    task: str
    max_new_tokens: int
    threads: int
    speed_prompts: int
    speed_tokens: int
    probe: dict[str, int]


class ParityParams(TypedDict):
    """Parameters of check_parity.py; ``budgets`` by conversion step, then figure."""

    primary_metric: str
    budgets: dict[str, dict[str, float]]
    gate: str
    bootstrap_samples: int
    confidence: float


class AdapterParityParams(TypedDict):
    """Parameters of check_adapter.py."""

    probe: dict[str, int]
    threads: int
    largest_logit_difference: float | None
    gate: str


class BenchmarkParams(TypedDict):
    """Parameters of benchmark.py."""

    threads: int
    prompt_lengths: list[int]
    batch_sizes: list[int]
    new_tokens: int
    rounds: int
