"""What a scenario of each task may configure: its metrics, its templates and the columns of its data.

How the rows of a task are read is in data/tasks.py, how its answers are scored in evaluation/metrics.py.
"""

from typing import NamedTuple

from pydantic import Field

from snaketune.config.base import Strict


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


class Columns(Strict):
    """Names of the columns in your data; `a.b` reaches into a nested object."""

    id: str | None = None
    group: str | None = Field(
        None, description="rows of one group stay in one split; by default rows with the same text"
    )
    split: str | None = Field(None, description="a column that holds train, validation or test")
    text: str | None = None
    label: str | None = None
    tokens: str | None = None
    tags: str | None = None
    source: str | None = None
    target: str | None = None
    language: str | None = None
    context: str | None = None
    question: str | None = None
    answers: str | None = None
    messages: str | None = None
    conversations: str | None = None
    prompt: str | None = None
    completion: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
