"""The typed model of a scenario: its task, where its data come from, how it is checked and scored."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from snaketune.config.base import Commit, HubName, Share, Strict
from snaketune.config.corpora import BUILTIN
from snaketune.config.tasks import LOWER_IS_BETTER, TASKS, Columns
from snaketune.config.templates import MARKUP, template_fields

if TYPE_CHECKING:
    TaskName = str
    CorpusName = str
else:
    TaskName, CorpusName = Literal[tuple(TASKS)], Literal[tuple(BUILTIN)]


class Part(Strict):
    """One of several files whose rows are mixed."""

    path: str = Field(min_length=1)
    weight: PositiveFloat | None = Field(
        None,
        description="share of rows drawn from this file, relative to the other files' weights; without weights, all rows of all files",
    )


class Source(Strict):
    """Exactly one of builtin, path or hub."""

    builtin: CorpusName | None = Field(None, description="a corpus that needs no download")
    options: dict[str, Any] = Field(
        default_factory=dict, validate_default=True, description="options of the built-in corpus"
    )
    path: str | dict[Literal["train", "validation", "test"], str] | list[Part] | None = Field(
        None,
        min_length=1,
        description="your JSONL (or NDJSON), JSON, CSV, TSV, Parquet or text file (one text per line), one such file per split, or a list of files to mix",
    )
    hub: HubName | None = Field(None, description="owner/name of a dataset on the Hugging Face Hub")
    revision: Commit | None = Field(None, description="commit of the dataset")
    configuration: str | None = Field(None, description="name of the dataset's configuration, if it has several")
    splits: dict[Literal["train", "validation", "test"], str] = Field(
        default={"train": "train"}, description="the Hub's split for each of ours, such as train[:2000]"
    )
    columns: Columns = Columns()

    @field_validator("options")
    @classmethod
    def _options_of_the_corpus(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        corpus = BUILTIN.get(info.data.get("builtin") or "")
        return corpus.options.model_validate(options).model_dump() if corpus else options

    @model_validator(mode="after")
    def _one_origin(self) -> "Source":
        if sum(origin is not None for origin in (self.builtin, self.path, self.hub)) != 1:
            raise ValueError("give exactly one of builtin, path, hub")
        if self.hub and not self.revision:
            raise ValueError("hub needs revision: the 40-digit commit of the dataset")
        for key, splits in (("path", self.path), ("splits", self.splits)):
            if isinstance(splits, dict) and "train" not in splits:
                raise ValueError(f"{key} needs train; missing validation and test splits are taken from it")
        if isinstance(self.path, list):
            if len({Path(path).resolve() for path in self.paths}) < len(self.paths):
                raise ValueError("path lists a file twice; give it a greater weight instead")
            if len({part.weight is None for part in self.path}) > 1:
                raise ValueError("path: give every file a weight, or none")
        if self.columns.split and not isinstance(self.path, str | list):
            raise ValueError("columns.split is for one file; leave it out if each split has its own")
        if self.options and not self.builtin:
            raise ValueError("options are for built-in corpora; leave them out")
        return self

    @property
    def paths(self) -> list[str]:
        """The user's files."""
        if isinstance(self.path, list):
            return [part.path for part in self.path]
        return [self.path] if isinstance(self.path, str) else list((self.path or {}).values())


class SplitRows(Strict):
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt


class SplitShares(Strict):
    """Shares of the rows for the splits that your files don't define."""

    validation: Share = 0.1
    test: Share = 0.2

    @model_validator(mode="after")
    def _some_left(self) -> "SplitShares":
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave rows for training")
        return self


class NearDuplicates(Strict):
    """Which texts count as near-duplicates."""

    # Below these the bands of MinHash, of three rows each, would let many pairs escape.
    threshold: float = Field(
        0.6, ge=0.5, le=1, description="Jaccard similarity of word trigrams at which two texts are near-duplicates"
    )
    permutations: int = Field(64, ge=32, description="permutations of MinHash; with more, fewer pairs are missed")


class DataBudgets(Strict):
    """Shares above which the data gate fails or, with `gate: warn`, flags the run."""

    duplicates: Share = Field(0.3, description="rows dropped as duplicates or near-duplicates of a kept row")
    leaks: Share = Field(0.01, description="validation and test rows that duplicate a training row or share its group")
    empty: Share = Field(0.0, description="rows without text or answer")
    truncated: Share = Field(0.01, description="answer tokens cut off by max_tokens or max_new_tokens")
    personal: Share = Field(
        0.01, description="rows with an e-mail address, a phone, card or account number, or a secret key"
    )
    majority: Share = Field(0.95, description="test rows with the most common label")
    labels: Share = Field(
        0.0, description="rows with a label that differs from another only in spaces or invisible characters"
    )


class Scenario(Strict):
    description: str = Field("", description="shown in reports and model cards")
    task: TaskName = Field(description="determines row formats, templates and metrics")
    licence: str = Field("not stated", description="licence of the data")
    source: Source
    prompt: str = Field("", description="the user's message, with the task's fields in braces; each task has a default")
    answer: str = Field("", description="the assistant's message")
    rows: SplitRows | None = Field(None, description="maximum number of rows in each split")
    rows_per_label: SplitRows | None = Field(None, description="maximum number of rows per label in each split")
    split: SplitShares = SplitShares()
    near_duplicates: NearDuplicates = NearDuplicates()
    gate: Literal["fail", "warn"] = Field("fail", description="fail the run over a budget, or only flag it")
    budgets: DataBudgets = DataBudgets()
    phone_regions: list[Annotated[str, Field(pattern="^[A-Z]{2}$")]] = Field(
        default=["US"],
        description="ISO codes of regions whose phone numbers count as personal data even without an international prefix",
    )
    max_tokens: PositiveInt = Field(512, description="longer rows are truncated; plain texts are split")
    max_new_tokens: PositiveInt | None = Field(
        None, description="maximum length of a generated answer; by default that of the longest reference"
    )
    metrics: list[str] = Field(default_factory=list, description="by default those of the task")
    primary_metric: str = Field("", description="decides comparisons; by default the first of metrics")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("task") not in TASKS:
            return content
        task = TASKS[content["task"]]
        content = {"metrics": task.metrics, "prompt": task.prompt, "answer": task.answer} | content
        return {"primary_metric": next(iter(content["metrics"] or []), "")} | content

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        task = TASKS[self.task]
        known = list(dict.fromkeys([*task.metrics, "perplexity"]))
        if unknown := [name for name in self.metrics if name not in known]:
            raise ValueError(f"metrics: {self.task} has no {unknown[0]}; it has {', '.join(known)}")
        if self.primary_metric not in self.metrics:
            raise ValueError(f"primary_metric {self.primary_metric} isn't in metrics")
        self._check_template("prompt", self.prompt, template_fields(task.prompt))
        self._check_template("answer", self.answer, template_fields(task.answer))
        if self.rows_per_label and "{label}" not in task.answer:
            raise ValueError("rows_per_label is for classification; use rows")
        if self.source.builtin and BUILTIN[self.source.builtin].task != self.task:
            corpus = self.source.builtin
            raise ValueError(f"the built-in corpus {corpus} is for task: {BUILTIN[corpus].task}")
        return self

    def _check_template(self, key: str, template: str, fields: set[str]) -> None:
        if not fields:
            if template:
                raise ValueError(f"{key}: task {self.task} uses messages or texts unchanged; leave it out")
            return
        try:
            used = template_fields(template)
        except ValueError:
            used = {""}
        if not used <= fields:
            allowed = " and ".join(f"{{{field}}}" for field in sorted(fields))
            raise ValueError(f"{key} may contain only the fields {allowed}; write {{{{ and }}}} for literal braces")
        if missing := sorted(fields - {"language"} - used):
            raise ValueError(f"{key} must contain {{{missing[0]}}}")
        # With a field filled in, as a token may close around it.
        if markup := MARKUP.search(template.format(**dict.fromkeys(fields, "x"))):
            raise ValueError(
                f"{key} contains {markup[0]!r}, which tokenizers read as a token of a chat format; leave it out, since the model's own chat template is applied"
            )

    @property
    def higher_is_better(self) -> bool:
        return self.primary_metric not in LOWER_IS_BETTER

    @property
    def has_messages(self) -> bool:
        return TASKS[self.task].has_messages
