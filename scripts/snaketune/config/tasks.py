"""What a scenario of each task may configure: its metrics and its templates.

How the rows of a task are read is in data/tasks.py, how its answers are scored in evaluation/metrics.py.
"""

from typing import NamedTuple


class Task(NamedTuple):
    """The defaults of a task's scenarios.

    ``metrics``: the primary one first. ``prompt`` and ``answer``: the templates; another template may hold
    the fields of the default one. A task without templates takes the messages, or texts, of its rows as they are.
    """

    metrics: list[str]
    prompt: str = ""
    answer: str = ""
    has_messages: bool = True


TASKS = {
    "classification": Task(["accuracy", "macro_f1"], "{text}", "{label}"),
    "tagging": Task(["entity_f1"], "Name the entities in this sentence and their types.\n{sentence}", "{entities}"),
    "translation": Task(["chrf", "bleu", "exact_match"], "Translate to {language}: {source}", "{target}"),
    "qa": Task(["f1", "exact_match"], "{context}\n{question}", "{answer}"),
    "chat": Task(["perplexity", "rouge_l", "chat_format"]),
    "language-modeling": Task(["perplexity", "bits_per_byte"], has_messages=False),
    "generation": Task(
        ["abc_validity", "full_bars", "distinct_2", "novelty", "perplexity"], "{prompt}", "{completion}"
    ),
}
LOWER_IS_BETTER = {"perplexity", "bits_per_byte"}
