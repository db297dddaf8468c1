"""Typed models of a technique that a hosted service runs: no weights and no ranks of ours."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from snaketune.config.base import Name, Strict

# Microsoft's table of serverless fine-tuning, as of 2026-02-17; `unlisted: true` sends others too.
PHI_REGIONS = ("eastus", "eastus2", "northcentralus", "southcentralus", "westus", "westus3")
AZURE_ML_MODELS = dict.fromkeys(("Phi-4", "Phi-4-mini-instruct", "Phi-4-multimodal-instruct"), PHI_REGIONS)
# The serverless offer of these ended on 2025-08-30.
RETIRED = ("Phi-3-mini", "Phi-3-small", "Phi-3-medium", "Phi-3.5")


class AzureMl(Strict):
    """An Azure ML job of `type: finetuning` without compute; place and credential are the environment's."""

    type: Literal["azure-ml"]
    model: Name = Field(description="name in the registry azureml, such as Phi-4-mini-instruct")
    version: str = Field("1", pattern=r"^[A-Za-z0-9._-]+$", description="of the model in the registry")
    region: str = Field(description="of the workspace: each model is offered in some")
    unlisted: bool = Field(False, description="send model and region though our list of offers hasn't got them")
    endpoint: Name | None = Field(
        None, description="a serverless endpoint with the tuned model, to be asked the test rows; none asks nothing"
    )
    untuned_endpoint: Name | None = Field(None, description="one with the model as it was, to be compared with")

    @model_validator(mode="after")
    def _offered(self) -> "AzureMl":
        if self.unlisted:
            return self
        if self.retired:
            return self
        if self.model not in AZURE_ML_MODELS:
            raise ValueError(
                f"model {self.model} isn't among those offered ({', '.join(AZURE_ML_MODELS)}); unlisted: true sends it all the same"
            )
        if self.region not in AZURE_ML_MODELS[self.model]:
            raise ValueError(
                f"region {self.region} doesn't offer {self.model} ({', '.join(AZURE_ML_MODELS[self.model])} do); unlisted: true sends it all the same"
            )
        return self

    @property
    def retired(self) -> bool:
        return self.model.startswith(RETIRED)

    @property
    def asks(self) -> bool:
        return self.endpoint is not None

    @property
    def asks_untuned(self) -> bool:
        return self.untuned_endpoint is not None


class OpenAiCompatible(Strict):
    """Files, fine_tuning.jobs and chat.completions; address and key are the environment's."""

    type: Literal["openai-compatible"]
    client: Literal["openai", "azure-openai", "azure-ai-projects"] = Field(
        "openai",
        description="openai: OPENAI_API_KEY, OPENAI_BASE_URL; azure-openai: AZURE_OPENAI_ENDPOINT, OPENAI_API_VERSION, AZURE_OPENAI_API_KEY or the credential chain; azure-ai-projects: AZURE_AI_PROJECT_ENDPOINT and the credential chain",
    )
    model: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?$")
    training_type: Literal["Standard", "GlobalStandard", "Developer"] | None = Field(
        None, description="Azure's trainingType: where it trains and at which price"
    )
    deployment: Name | None = Field(None, description="where the tuned model answers; none asks it by its own name")
    untuned_deployment: Name | None = Field(None, description="likewise of the model as it was")
    untuned: bool = Field(False, description="ask the model as it was too, to be compared with")
    answer_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="what the service calls the most tokens of an answer"
    )

    @property
    def retired(self) -> bool:
        return False

    @property
    def asks(self) -> bool:
        return True

    @property
    def asks_untuned(self) -> bool:
        return self.untuned


class Limits(Strict):
    """What the service refuses; SDKs don't look."""

    least_rows: PositiveInt = Field(10, description="of the training file")
    most_rows: PositiveInt | None = None
    most_bytes: PositiveInt = Field(512 * 1024 * 1024, description="of a file")
    most_row_characters: PositiveInt | None = Field(None, description="of all messages of a row")


class Price(Strict):
    """Yours: of your contract, for the estimate of `--dry-run`."""

    per_million_training_tokens: NonNegativeFloat
    currency: str = Field(pattern=r"^[A-Z]{3}$")


class HostedTechnique(Strict):
    """Fine-tuning as a service: the scenario's rows go there, a model's name comes back."""

    description: str
    service: Annotated[AzureMl | OpenAiCompatible, Field(discriminator="type")]
    hyperparameters: dict[str, str | int | float] = Field(
        default_factory=dict, description="the service's own; epochs are the experiment's"
    )
    limits: Limits = Limits()
    characters_per_token: PositiveFloat = Field(4.0, description="roughly, of the model's tokenizer; for the estimate")
    price: Price | None = Field(None, description="none estimates tokens only")
    attempt: PositiveInt = Field(
        1, description="a job is submitted once; after it failed there, raise this for another"
    )

    @model_validator(mode="after")
    def _known_hyperparameters(self) -> "HostedTechnique":
        epochs = {"n_epochs", "num_train_epochs"} & self.hyperparameters.keys()
        if epochs:
            raise ValueError(
                f"hyperparameters.{min(epochs)}: epochs are training.epochs of the experiment; leave it out"
            )
        known = {"batch_size", "learning_rate_multiplier"}
        unknown = self.hyperparameters.keys() - known
        if isinstance(self.service, OpenAiCompatible) and unknown:
            raise ValueError(
                f"hyperparameters.{min(unknown)}: unknown; supervised jobs have {', '.join(sorted(known))}"
            )
        return self

    @property
    def row_model(self) -> str:
        """The model's name in paths and in the summary."""
        return self.service.model.replace("/", "--")

    @property
    def asks(self) -> bool:
        return self.service.asks

    @property
    def asks_untuned(self) -> bool:
        return self.service.asks and self.service.asks_untuned
