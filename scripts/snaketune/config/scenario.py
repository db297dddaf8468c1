"""The typed model of a scenario: its task, where its data come from, how it is checked and scored."""

from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from snaketune.config.base import Share, Strict
from snaketune.config.templates import MARKUP, template_fields

TASKS: dict[str, dict[str, Any]] = {
    # Metrics: the primary one first. Fields: what the templates may hold.
    "classification": {
        "metrics": ["accuracy", "macro_f1"],
        "prompt": "{text}",
        "answer": "{label}",
        "fields": ({"text"}, {"label"}),
    },
    "tagging": {
        "metrics": ["entity_f1"],
        "prompt": "Name the entities in this sentence and their types.\n{sentence}",
        "answer": "{entities}",
        "fields": ({"sentence"}, {"entities"}),
    },
    "translation": {
        "metrics": ["chrf", "bleu", "exact_match"],
        "prompt": "Translate to {language}: {source}",
        "answer": "{target}",
        "fields": ({"language", "source"}, {"target"}),
    },
    "qa": {
        "metrics": ["f1", "exact_match"],
        "prompt": "{context}\n{question}",
        "answer": "{answer}",
        "fields": ({"context", "question"}, {"answer"}),
    },
    "chat": {"metrics": ["perplexity", "rouge_l", "chat_format"]},
    "language-modeling": {"metrics": ["perplexity", "bits_per_byte"]},
    "generation": {
        "metrics": ["abc_validity", "full_bars", "distinct_2", "novelty", "perplexity"],
        "prompt": "{prompt}",
        "answer": "{completion}",
        "fields": ({"prompt"}, {"completion"}),
    },
}
Task = Literal["classification", "tagging", "translation", "qa", "chat", "language-modeling", "generation"]
LOWER_IS_BETTER = {"perplexity", "bits_per_byte"}


class Columns(Strict):
    """Names of the columns in your data; `a.b` reaches into a nested object."""

    id: str | None = None
    group: str | None = Field(None, description="rows of one group stay in one split; the text itself where not given")
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


class AreasOptions(Strict):
    areas: dict[str, list[str]] = Field(min_length=2, description="label: modules whose docstrings get it")
    aliases: list[str] = Field(
        default_factory=list, description="words removed from the texts with the names of module and package"
    )
    max_characters: PositiveInt = 240
    min_characters: PositiveInt = 40


class DomainOptions(Strict):
    libraries: list[str] = Field(min_length=1, description="whose documentation is the domain")
    max_characters: PositiveInt = 400
    min_characters: PositiveInt = 80


class EntitiesOptions(Strict):
    max_words: PositiveInt = 30
    min_words: PositiveInt = 5


class QuestionsOptions(Strict):
    max_characters: PositiveInt = 300


class DialoguesOptions(Strict):
    max_characters: PositiveInt = 400


class NamesOptions(Strict):
    languages: dict[str, str] = Field(min_length=1, description="locale: name of the language in the prompt")


class TunesOptions(Strict):
    max_characters: PositiveInt = 200


# Each is a module of scripts/snaketune/corpora/, with the task whose fields it yields.
BUILTIN: dict[str, tuple[str, type[Strict]]] = {
    "areas": ("classification", AreasOptions),
    "domain": ("language-modeling", DomainOptions),
    "entities": ("tagging", EntitiesOptions),
    "names": ("translation", NamesOptions),
    "questions": ("qa", QuestionsOptions),
    "dialogues": ("chat", DialoguesOptions),
    "tunes": ("generation", TunesOptions),
}
# Made of the docstrings that the corpus collects; the others bring their own text.
DOCUMENTATION = {"areas", "domain", "entities", "questions", "dialogues"}


class Source(Strict):
    """Exactly one of builtin, path or hub."""

    builtin: Literal["areas", "domain", "entities", "names", "questions", "dialogues", "tunes"] | None = Field(
        None, description="a corpus that is on every machine"
    )
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True, description="of the built-in corpus")
    path: str | dict[Literal["train", "validation", "test"], str] | None = Field(
        None,
        min_length=1,
        description="your JSONL (or NDJSON), JSON, CSV, TSV, Parquet or text file (one text a line), or one for each split",
    )
    hub: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$", description="owner/name of a dataset on the hub"
    )
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$", description="commit of the dataset")
    configuration: str | None = Field(None, description="of the dataset, where it has several")
    splits: dict[Literal["train", "validation", "test"], str] = Field(
        default={"train": "train"}, description="our split: the hub's, such as train[:2000]"
    )
    columns: Columns = Columns()

    @field_validator("options")
    @classmethod
    def _known_to_the_corpus(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        builtin = info.data.get("builtin")
        return BUILTIN[builtin][1].model_validate(options).model_dump() if builtin else options

    @model_validator(mode="after")
    def _one_origin(self) -> "Source":
        if sum(origin is not None for origin in (self.builtin, self.path, self.hub)) != 1:
            raise ValueError("give exactly one of builtin, path, hub")
        if self.hub and not self.revision:
            raise ValueError("hub needs revision: the 40-digit commit of the dataset")
        for key, splits in (("path", self.path), ("splits", self.splits)):
            if isinstance(splits, dict) and "train" not in splits:
                raise ValueError(f"{key} needs train; validation and test are taken from it where they are missing")
        if self.columns.split and not isinstance(self.path, str):
            raise ValueError("columns.split is for one file; leave it out where each split has its own")
        if self.options and not self.builtin:
            raise ValueError("options are of a built-in corpus; leave them out")
        return self

    @property
    def paths(self) -> list[str]:
        """The user's files."""
        return [self.path] if isinstance(self.path, str) else list((self.path or {}).values())


class SplitRows(Strict):
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt


class SplitShares(Strict):
    validation: Share = 0.1
    test: Share = 0.2

    @model_validator(mode="after")
    def _some_left(self) -> "SplitShares":
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave rows for training")
        return self


class NearDuplicates(Strict):
    # Below these the bands of MinHash, of three rows each, would let many pairs escape.
    threshold: float = Field(
        0.6, ge=0.5, le=1, description="Jaccard similarity of word trigrams from which two texts are near-duplicates"
    )
    permutations: int = Field(64, ge=32, description="of MinHash; more let fewer pairs escape")


class DataBudgets(Strict):
    """Shares over which the data gate fails, or marks with `gate: warn`."""

    duplicates: Share = Field(0.3, description="rows dropped because a kept row is like them")
    leaks: Share = Field(0.01, description="validation and test rows that are like a training row or of its group")
    empty: Share = Field(0.0, description="rows without text or answer")
    truncated: Share = Field(0.01, description="answer tokens that max_tokens cuts off")
    personal: Share = Field(0.01, description="rows with an e-mail address, a phone number or a secret key")
    majority: Share = Field(0.95, description="test rows with the commonest label")


class Scenario(Strict):
    description: str = ""
    task: Task
    licence: str = "not stated"
    source: Source
    prompt: str = Field("", description="the user's message, with the task's fields in braces; each task has a default")
    answer: str = Field("", description="the assistant's message")
    rows: SplitRows | None = Field(None, description="at most so many of each split")
    rows_per_label: SplitRows | None = None
    split: SplitShares = SplitShares()
    near_duplicates: NearDuplicates = NearDuplicates()
    gate: Literal["fail", "warn"] = "fail"
    budgets: DataBudgets = DataBudgets()
    max_tokens: PositiveInt = Field(512, description="longer rows are cut")
    max_new_tokens: PositiveInt = Field(64, description="of a generated answer")
    metrics: list[str] = Field(default_factory=list, description="the task's, where none are given")
    primary_metric: str = Field("", description="the first of metrics, where not given")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("task") not in TASKS:
            return content
        task = TASKS[content["task"]]
        filled = {"metrics": task["metrics"], "prompt": task.get("prompt", ""), "answer": task.get("answer", "")}
        content = filled | content
        return {"primary_metric": next(iter(content["metrics"] or []), "")} | content

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        known = list(dict.fromkeys([*TASKS[self.task]["metrics"], "perplexity"]))
        if unknown := [name for name in self.metrics if name not in known]:
            raise ValueError(f"metrics: {self.task} has no {unknown[0]}; it has {', '.join(known)}")
        if self.primary_metric not in self.metrics:
            raise ValueError(f"primary_metric {self.primary_metric} isn't in metrics")
        fields = TASKS[self.task].get("fields")
        for key, allowed in zip(("prompt", "answer"), fields or (set(), set()), strict=True):
            self._check_template(key, allowed)
        if self.rows_per_label and self.task != "classification":
            raise ValueError("rows_per_label is for classification; use rows")
        if self.source.builtin:
            task, _ = BUILTIN[self.source.builtin]
            if task != self.task:
                raise ValueError(f"the built-in corpus {self.source.builtin} is for task: {task}")
        return self

    def _check_template(self, key: str, fields: set[str]) -> None:
        template = getattr(self, key)
        if not fields:
            if template:
                raise ValueError(f"{key}: task {self.task} takes the messages or texts as they are; leave it out")
            return
        try:
            held = template_fields(template)
        except ValueError:
            held = {""}
        if not held <= fields:
            allowed = " and ".join(f"{{{field}}}" for field in sorted(fields))
            raise ValueError(f"{key} may hold {allowed} only, no other field; write {{{{ and }}}} for braces")
        if missing := sorted(fields - {"language"} - held):
            raise ValueError(f"{key} must hold {{{missing[0]}}}")
        # With a field filled in, as a token may close around it.
        if markup := MARKUP.search(template.format(**dict.fromkeys(fields, "x"))):
            raise ValueError(
                f"{key} holds {markup[0]!r}, which tokenizers take for a token of the chat format; leave it out, the model's own chat template is applied"
            )

    @property
    def higher_is_better(self) -> bool:
        return self.primary_metric not in LOWER_IS_BETTER
